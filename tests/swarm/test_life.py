"""The life of a swarm as its user sees it: start, stop, status, what can be asked of it, and bad input."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
import weakref

import pytest

from pidfdpool import CallNotSendable, TemplateError
from pidfdpool.loop.pool_thread import PoolThread
from pidfdpool.swarm import EventKind, NodeState, Phase, Swarm
from pidfdpool.swarm.aio import AsyncSwarm
from tests.conditions import eventually, in_forked_child, run_python
from tests.swarm import nodes
from tests.swarm.swarms import QUICK, deaths, kinds, pid_of, saw, swarm_of


@pytest.fixture(scope="module")
def running():
    """Give one swarm of two nodes to tests that change nothing."""
    with swarm_of(nodes.serve, 2) as swarm:
        pid_of(swarm)
        yield swarm


# ---- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"nodes": 0}, ValueError, "nodes must be >= 1, not 0"),
        ({"nodes": -2}, ValueError, "nodes must be >= 1, not -2"),
        ({"nodes": "4"}, TypeError, "nodes must be an integer, not '4'"),
        ({"nodes": True}, TypeError, "nodes must be an integer, not True"),
        (
            {"report_timeout": 0},
            ValueError,
            "report_timeout must be a number of seconds, more than 0, or None, not 0",
        ),
        ({"report_timeout": "60"}, TypeError, "report_timeout must be a number of seconds, .* not '60'"),
        ({"stop_timeout": 0}, ValueError, "stop_timeout must be a number of seconds, more than 0, not 0"),
        ({"stop_timeout": None}, TypeError, "stop_timeout must be .* not None"),
        ({"start_timeout": float("nan")}, ValueError, "start_timeout must be .* not nan"),
        ({"restart_pause": -1}, ValueError, "restart_pause must be a number of seconds, 0 or more, not -1"),
        ({"max_age": float("inf")}, ValueError, "max_age must be .* not inf"),
        ({"max_memory": 0}, ValueError, "max_memory must be >= 1, not 0"),
        ({"intensity": 1.5}, TypeError, "intensity must be an integer or None, not 1.5"),
        ({"overlap": 1}, TypeError, "overlap must be True or False, not 1"),
        ({"restart": "never"}, ValueError, "restart must be 'on-failure' or 'always', not 'never'"),
        ({"stop_order": ()}, TypeError, r"stop_order must be .* not \(\)"),
        ({"stop_order": "SIGKILL"}, ValueError, "stop_order must be .* not 'SIGKILL'"),
        ({"stop_order": ("request", "request")}, ValueError, "stop_order must be"),
        ({"args": 5}, TypeError, "args must be an iterable of arguments, not 5"),
        ({"preload": 5}, TypeError, "preload must be"),
        ({"on_event": "print"}, TypeError, "on_event must be a callable or None, not 'print'"),
        ({"mp_context": "thread"}, ValueError, "mp_context must be one of"),
        ({"name": 5}, TypeError, "name must be a text or None, not 5"),
        ({"threads_per_node": 0}, ValueError, "threads_per_node must be >= 1, not 0"),
    ],
)
def test_a_bad_option_is_refused_with_its_name_and_value(options, error, text):
    with pytest.raises(error, match=text):
        Swarm(nodes.serve, **options)


def test_a_target_that_is_not_callable_is_refused():
    with pytest.raises(TypeError, match="target must be a callable, not 'tests.swarm.nodes:serve'"):
        Swarm("tests.swarm.nodes:serve")


def test_a_target_that_does_not_pickle_is_refused_at_the_start_and_nothing_is_left():
    swarm = Swarm(nodes.serve, args=(threading.Lock(),))
    for _ in range(2):
        with pytest.raises(CallNotSendable, match="target, its args, or the preload callable cannot be sent"):
            swarm.start()
    assert swarm.status().phase is Phase.NEW


def test_a_program_that_is_no_python_is_named(monkeypatch):
    import multiprocessing.spawn

    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/no/such/python")
    with pytest.raises(TemplateError, match="/no/such/python"):
        Swarm(nodes.serve).start()


def test_a_signal_handler_that_raises_within_the_start_leaves_nothing(monkeypatch):
    class Alarm(Exception):
        pass

    def alarm(_number, _frame):
        raise Alarm

    def start(thread):
        start_thread(thread)
        signal.raise_signal(signal.SIGALRM)  # it is blocked, and comes when the swarm unblocks it

    start_thread = PoolThread.start
    monkeypatch.setattr(PoolThread, "start", start)
    before = signal.signal(signal.SIGALRM, alarm)
    try:
        swarm = Swarm(nodes.serve, **QUICK)
        with pytest.raises(Alarm):
            swarm.start()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert swarm.wait(30)
    assert swarm.status().phase is Phase.ENDED


def test_start_twice_and_use_before_the_start_and_after_the_end():
    swarm = Swarm(nodes.serve, **QUICK)
    for use in (swarm.stop, swarm.kill, swarm.wait, swarm.wait_until_healthy, swarm.quiet, swarm.restart, swarm.ping):
        with pytest.raises(RuntimeError, match="this swarm was not started"):
            use()
    assert repr(swarm) == "<Swarm 'serve', NEW, 0 of 1 nodes healthy>"
    with swarm:
        with pytest.raises(RuntimeError, match="this swarm was started already"):
            swarm.start()
    with pytest.raises(RuntimeError, match="this swarm was started already"):
        swarm.start()
    for use in (swarm.quiet, swarm.restart, lambda: swarm.resize(3)):
        with pytest.raises(RuntimeError, match="this swarm has ended"):
            use()
    swarm.stop()
    swarm.kill()
    assert swarm.wait(0)
    assert not swarm.ping()
    assert swarm.signal(signal.SIGTERM) == 0
    assert swarm.stacks() == {}


def test_a_forked_child_can_do_nothing_with_its_copy(running):
    def try_all():
        for use in (running.status, running.stop, running.wait, running.start, lambda: running.signal(9)):
            with pytest.raises(RuntimeError, match=f"this swarm belongs to process {os.getppid()}, from which"):
                use()

    assert in_forked_child(try_all) == "ok"
    assert in_forked_child(lambda: running.__exit__(None, None, None)) == "ok"  # it leaves the block, as by sys.exit
    assert running.status().healthy == 2
    assert running.ping(30)


def test_bad_calls_are_refused_with_name_and_value(running):
    for call, error, text in [
        (lambda: running.resize(0), ValueError, "nodes must be >= 1, not 0"),
        (lambda: running.restart(rolling="no"), TypeError, "rolling must be True or False, not 'no'"),
        (lambda: running.signal(99), ValueError, "sig must be <= 64, not 99"),
        (
            lambda: running.signal(34, 1 << 64),
            ValueError,
            "value must be <= 18446744073709551615, not 18446744073709551616",
        ),
        (lambda: running.signal(34, True), TypeError, "value must be an integer or None, not True"),
        (lambda: running.signal("TERM"), TypeError, "sig must be an integer, not 'TERM'"),
        (lambda: running.signal(9, node=2), ValueError, "there is no node 2 in this swarm of 2"),
        (lambda: running.wait("soon"), TypeError, "timeout must be a number of seconds, or None, not 'soon'"),
        (lambda: running.wait_until_healthy(0), ValueError, "nodes must be >= 1, not 0"),
        (lambda: running.stacks(-1), ValueError, "timeout must be a number of seconds, 0 or more, not -1"),
        (lambda: running.subscribe(None), TypeError, "callback must be a callable, not None"),
    ]:
        with pytest.raises(error, match=text):
            call()


# ---- what is to be seen ----------------------------------------------------------------------------------------


def test_the_status_says_what_is_there(running):
    status = running.status()
    assert (status.phase, status.healthy, status.restarting, status.given_up, status.failure) == (
        Phase.RUNNING, 2, False, (), "",
    )  # fmt: skip
    for number, node in enumerate(status.nodes):
        assert (node.id, node.state, node.attempt, node.deaths) == (number, NodeState.HEALTHY, 1, 0)
        assert node.uptime > 0
        assert 0 <= node.reported < 30
    assert all(node.memory is None for node in status.nodes)
    assert all(1_000_000 < node.memory < 10**10 for node in running.status(measure_memory=True).nodes)
    assert repr(running) == "<Swarm 'serve', RUNNING, 2 of 2 nodes healthy>"
    assert not running.wait(0)
    assert running.ping(30)


def test_the_stacks_of_all_nodes_can_be_seen(running):
    for _ in range(2):

        def seen():
            stacks = running.stacks(20)
            return sorted(stacks) == [0, 1] and all("in serve" in stack for stack in stacks.values()) and stacks

        # On a machine that is held up, a node may stand still in the middle of what it writes.
        assert "node_process" not in "".join(eventually(seen, "the stacks of both").values())


def test_callbacks_hear_everything_and_what_they_raise_is_logged(caplog):
    heard, late = [], []

    def hear(event):
        heard.append((event, threading.current_thread() is threading.main_thread()))
        raise ValueError("from the callback")

    with caplog.at_level(logging.DEBUG, "pidfdpool.swarm"), swarm_of(nodes.serve) as swarm:
        unsubscribe = swarm.subscribe(hear)
        pid_of(swarm)
        forget = swarm.subscribe(late.append)
        forget()
        forget()
        swarm.signal(signal.SIGKILL)
        saw(swarm, EventKind.HEALTHY, times=2)
        unsubscribe()
    assert {kind for _, kind in heard} == {False}
    assert EventKind.DIED in {event.kind for event, _ in heard}
    assert late == []
    assert any("from the callback" in record.exc_text for record in caplog.records if record.exc_text)
    [died, _] = [record for record in caplog.records if "ended: " in record.getMessage()]
    assert died.levelno == logging.WARNING
    assert died.event.death.exit_status.signal == 9
    assert "swarm serve: node 0" in died.getMessage()


def test_a_callback_may_ask_for_anything_but_cannot_wait():
    found = []

    def react(event):
        if event.kind is EventKind.HEALTHY:
            with pytest.raises(RuntimeError, match="cannot wait for the swarm"):
                swarm.wait()
            found.append(swarm.status().healthy)
            swarm.stop()

    swarm = Swarm(nodes.serve, on_event=react, **QUICK).start()
    assert swarm.wait(30)
    assert found == [1]


# ---- what can be asked of it --------------------------------------------------------------------------------------


def test_it_can_be_made_larger_and_smaller():
    with swarm_of(nodes.serve, 1) as swarm:
        pid_of(swarm)
        swarm.resize(3)
        assert swarm.wait_until_healthy(3, timeout=30)
        swarm.resize(1)
        eventually(lambda: len(swarm.status().nodes) == 1, "two are gone")
        assert not deaths(swarm, 0)
        swarm.resize(2)
        saw(swarm, EventKind.HEALTHY, 1, times=2)


@pytest.mark.parametrize("overlap", [False, True])
def test_a_rolling_restart_leaves_all_but_one_at_work(overlap):
    with swarm_of(nodes.serve, 3, overlap=overlap) as swarm:
        pid_of(swarm)
        before = len(swarm.seen)
        swarm.restart()
        eventually(lambda: not swarm.status().restarting, "all are restarted")
        assert [node.attempt for node in swarm.status().nodes] == [2, 2, 2]
    stops = [event.node for event in swarm.seen if event.kind is EventKind.STOPPING and event.attempt == 1]
    assert stops == [0, 1, 2]
    away = set()
    for event in swarm.seen[before:]:
        if event.kind is EventKind.STOPPING and event.attempt == 1 and not overlap:
            away.add(event.node)
        elif event.kind is EventKind.HEALTHY:
            away.discard(event.node)
        assert len(away) <= 1


def test_a_restart_of_all_at_once():
    with swarm_of(nodes.serve, 2) as swarm:
        pid_of(swarm)
        swarm.restart(rolling=False)
        for number in (0, 1):
            saw(swarm, EventKind.HEALTHY, number, times=2)


def test_a_kill_does_not_wait_for_anybody():
    with swarm_of(nodes.hang_in_c, 2) as swarm:
        pid_of(swarm)
        swarm.kill()
        assert swarm.status().phase is Phase.ENDED
    assert [death.exit_status.signal for death in deaths(swarm)] == [signal.SIGKILL]
    assert EventKind.KILLED in kinds(swarm)


def test_a_stop_right_after_the_start():
    for _ in range(3):
        with swarm_of(nodes.serve, 2):
            pass


# ---- asyncio -------------------------------------------------------------------------------------------------------


def test_who_waits_in_a_coroutine_hears_of_changes_that_are_no_events():
    async def use():
        # The third node will not become healthy. When it is gone there is no event, because it has no process.
        async with Swarm(nodes.fail_as_the_third, 3, restart_pause=60.0) as swarm:
            assert await swarm.wait_until_healthy(2, timeout=30)
            eventually(lambda: swarm.status().nodes[2].deaths, "the third one has died")
            waits = asyncio.ensure_future(swarm.wait_until_healthy())
            await asyncio.sleep(0)
            swarm.resize(2)
            return await asyncio.wait_for(waits, 30)

    assert asyncio.run(use())


def test_waits_and_events_leave_nothing_behind_while_the_swarm_goes_on():
    async def use():
        async with Swarm(nodes.serve, **QUICK) as swarm:
            assert await swarm.wait_until_healthy(timeout=30)
            gc.collect()
            before = len(gc.get_objects())
            for _ in range(300):
                assert not await swarm.wait(0)
                assert not await swarm.wait_until_healthy(2, timeout=0)
            gc.collect()
            return len(gc.get_objects()) - before

    assert asyncio.run(use()) < 300

    async def follow():
        async with Swarm(nodes.serve, **QUICK) as swarm:
            events = swarm.events()
            await anext(events)
            is_there = weakref.ref(events)
            del events
            gc.collect()
            return is_there() is not None

    assert not asyncio.run(follow())


def test_the_forms_for_asyncio():
    async def use():
        seen = []
        swarm = Swarm(nodes.serve, 2, **QUICK)
        events = swarm.events()

        async def follow():
            seen.extend([event async for event in events])

        async with swarm as running:
            following = asyncio.create_task(follow())
            assert await running.wait_until_healthy(timeout=30)
            assert not await running.wait(0.01)
            assert running.status().healthy == 2
            assert running.signal(signal.SIGKILL, node=0) == 1
            assert not await running.wait_until_healthy(3, timeout=0.01)
            running.resize(3)
            assert await running.wait_until_healthy(3, timeout=30)
            running.restart()
            running.quiet()
            await running.stop()
            assert await running.wait()
        await following
        return seen, swarm.status()

    seen, status = asyncio.run(use())
    assert status.phase is Phase.ENDED
    assert [event.kind for event in seen if event.node == 1][:2] == [EventKind.STARTED, EventKind.HEALTHY]
    assert seen[-1].kind is EventKind.DIED


def test_a_cancelled_wait_ends_nothing_but_the_wait():
    async def use():
        async with Swarm(nodes.serve, **QUICK) as swarm:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(swarm.wait(), 0.01)
            assert await swarm.wait_until_healthy(timeout=30)
            events = swarm.events()
            await swarm.kill()
            return [event.kind async for event in events]

    assert EventKind.DIED in asyncio.run(use())


# ---- the end of the program ----------------------------------------------------------------------------------------

PROGRAM = """
    import sys, os
    from pidfdpool.swarm import Swarm
    from tests.swarm import nodes
    swarm = Swarm(nodes.write_and_serve, 2, args=(sys.argv[1],)).start()
    assert swarm.wait_until_healthy(timeout=30)
    {end}
"""


@pytest.mark.parametrize("end", ["pass", "del swarm", "raise KeyboardInterrupt"])
def test_a_program_that_ends_without_a_stop_stops_its_swarm(end, tmp_path):
    done = run_python(PROGRAM.format(end=end), str(tmp_path))
    assert ("KeyboardInterrupt" in done.stderr) == ("Keyboard" in end)
    assert "pidfdpool/" not in done.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_a_module_that_starts_its_swarm_when_it_is_imported_starts_no_swarm_in_each_template(tmp_path):
    (tmp_path / "unguarded.py").write_text(
        "from pidfdpool.swarm import Swarm\n"
        "def serve(node):\n"
        "    node.stopping.wait()\n"
        "swarm = Swarm(serve).start()\n"
    )
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import unguarded
        assert unguarded.swarm.wait(30)
        print(unguarded.swarm.status().failure)
    """
    done = run_python(code, str(tmp_path))
    assert "a swarm was used by the import of module 'unguarded'" in done.stdout
    assert "each node would start such a swarm" in done.stdout
    assert done.returncode == 0


def test_a_script_without_a_guard_works_as_its_target_is_sent_by_value(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "from pidfdpool.swarm import Swarm\n"
        "word = 'done'\n"
        "def work(node, path):\n"
        "    with open(path, 'w') as file:\n"
        "        file.write(word)\n"
        f"swarm = Swarm(work, args=({str(tmp_path / 'out')!r},)).start()\n"
        "assert swarm.wait(30)\n"
        "print(swarm.status().nodes[0].state.value)\n"
    )
    done = run_python("import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", str(path))
    assert (done.stdout, done.stderr) == ("DONE\n", "")
    assert (tmp_path / "out").read_text() == "done"


@pytest.mark.parametrize("seen", [True, False])
def test_what_was_seen_of_the_nodes_counts_though_it_is_open_again_a_moment_later(seen, monkeypatch):
    """Guards: a node that dies as soon as it was healthy had the wait end at once, with False."""
    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        for wait in (
            swarm.wait_until_healthy,
            lambda: asyncio.run(AsyncSwarm(swarm._supervisor).wait_until_healthy()),
        ):
            outlooks = iter([seen])
            monkeypatch.setattr(swarm._supervisor, "outlook", lambda _nodes, outlooks=outlooks: next(outlooks, None))
            assert wait() is seen
