"""The rules with real processes: nodes that crash, hang, grow, say that they are unhealthy, or do not stop."""

from __future__ import annotations

import os
import pickle
import signal
import time

import pytest

from pidfdpool.swarm import EventKind, NodeState, Phase, Reason, Swarm
from tests.conditions import children, eventually, is_alive
from tests.swarm import nodes
from tests.swarm.swarms import QUICK, deaths, kinds, pid_of, saw, swarm_of


def test_a_node_that_is_killed_is_started_again_with_its_number():
    with swarm_of(nodes.serve, 2) as swarm:
        first = pid_of(swarm, 1)
        assert swarm.signal(signal.SIGKILL, node=1) == 1
        saw(swarm, EventKind.HEALTHY, 1, times=2)
        status = swarm.status().nodes[1]
        assert (status.id, status.attempt, status.state, status.deaths) == (1, 2, NodeState.HEALTHY, 1)
        assert status.pid != first
        assert swarm.status().nodes[0].attempt == 1
    [death, stopped] = deaths(swarm, 1)
    assert (death.pid, death.exit_status.signal, death.reason, death.young) == (first, 9, Reason.UNASKED, True)
    assert (stopped.reason, stopped.exit_status.code) == (Reason.SHUTDOWN, 0)
    assert death.peak_rss
    assert death.cpu_time is not None
    assert kinds(swarm, 1) == [
        EventKind.STARTED, EventKind.HEALTHY, EventKind.DIED,
        EventKind.RESTARTED, EventKind.HEALTHY, EventKind.STOPPING, EventKind.DIED,
    ]  # fmt: skip


def test_a_node_that_raises_at_once_is_given_up_with_its_history(capfd):
    with swarm_of(nodes.fail_at_once, intensity=2) as swarm:
        assert swarm.wait(30)
        assert swarm.status().given_up == (0,)
        gave_up = saw(swarm, EventKind.GAVE_UP)
        assert [death.detail for death in gave_up.history] == [
            f"ValueError: attempt {number} fails" for number in (1, 2, 3)
        ]
        assert all(death.exit_status.code == 1 and death.young for death in gave_up.history)
    printed = capfd.readouterr().err
    assert "ValueError: attempt 1 fails" in printed
    assert "node_process" not in printed


def test_the_last_words_of_a_node_are_in_the_record_of_its_death_and_are_passed_on(capfd):
    with swarm_of(nodes.fail_at_once, capture_stderr=True, intensity=0) as swarm:
        assert swarm.wait(30)
        [death] = deaths(swarm)
        assert death.stderr[-1] == "ValueError: attempt 1 fails"
        assert "ValueError: attempt 1 fails" in str(death)
    assert "ValueError: attempt 1 fails" in capfd.readouterr().err


def test_the_records_can_be_pickled():
    with swarm_of(nodes.fail_at_once, intensity=0) as swarm:
        assert swarm.wait(30)
    for record in (*swarm.seen, swarm.status()):
        assert pickle.loads(pickle.dumps(record)) == record
        assert str(record)


def test_a_node_that_fails_and_then_works_goes_on():
    with swarm_of(nodes.fail_until, args=(3,)) as swarm:
        assert swarm.wait_until_healthy(timeout=30)
        assert [death.exit_status.code for death in deaths(swarm)] == [3, 3]
        assert swarm.status().nodes[0].attempt == 3


def test_nodes_that_end_at_once_are_done_and_the_swarm_ends():
    with swarm_of(nodes.end_at_once, 2) as swarm:
        assert swarm.wait(30)
        assert [node.state for node in swarm.status().nodes] == [NodeState.DONE] * 2
        assert not swarm.wait_until_healthy(timeout=30)
    assert kinds(swarm) == [EventKind.STARTED, EventKind.DIED, EventKind.DONE]


def test_restart_always_gives_up_a_node_that_ends_at_once_again_and_again():
    with swarm_of(nodes.end_at_once, restart="always", intensity=2) as swarm:
        assert swarm.wait(30)
        assert [death.exit_status.code for death in deaths(swarm)] == [0, 0, 0]
        assert swarm.status().given_up == (0,)


@pytest.mark.parametrize(("reason", "detail"), [("tired", "tired"), (7, "code 7")])
def test_a_node_that_says_that_it_is_unhealthy_is_replaced(reason, detail):
    with swarm_of(nodes.say_unhealthy, args=(reason,)) as swarm:
        assert saw(swarm, EventKind.UNHEALTHY).detail == detail
        saw(swarm, EventKind.HEALTHY, times=2)
        [death] = deaths(swarm)
        assert (death.reason, death.detail, death.exit_status.code) == (Reason.UNHEALTHY, detail, 0)


def test_a_node_that_hangs_is_found_silent_and_its_stack_tells_where(tmp_path):
    options = {"report_timeout": 0.3, "start_timeout": 30.0, "stop_timeout": 0.6}
    with swarm_of(nodes.hang_if_first, **options) as swarm:
        saw(swarm, EventKind.SILENT)
        saw(swarm, EventKind.HEALTHY, times=2)
        [death] = deaths(swarm)
        assert death.reason is Reason.SILENT
        assert "hang_if_first" in death.stack
        # It does not look at node.stopping; SIGTERM, which comes after half of the time, has it exit.
        assert death.exit_status.code == 128 + signal.SIGTERM
        assert EventKind.KILLED not in kinds(swarm)


def test_a_node_that_is_stuck_in_c_and_ignores_sigterm_is_killed_with_its_group():
    with swarm_of(nodes.ignore_everything, stop_timeout=0.2) as swarm:
        pid = pid_of(swarm)
        [child] = eventually(lambda: children(pid), "its child")
    assert not is_alive(pid)
    eventually(lambda: not is_alive(child), "its child is killed")
    [death] = deaths(swarm)
    assert (death.exit_status.signal, death.reason) == (signal.SIGKILL, Reason.SHUTDOWN)
    assert "in ignore_everything" in death.stack
    assert kinds(swarm)[-2:] == [EventKind.KILLED, EventKind.DIED]


def test_a_node_that_is_stopped_by_a_signal_is_found_silent_and_ended():
    with swarm_of(nodes.stop_itself, report_timeout=0.2, start_timeout=30.0) as swarm:
        saw(swarm, EventKind.SILENT)
        death = saw(swarm, EventKind.DIED).death
        assert (death.reason, death.exit_status.code) == (Reason.SILENT, 0)  # it was woken, and did as it was asked


def test_a_node_that_never_reports_is_stopped_after_start_timeout():
    with swarm_of(nodes.never_report, start_timeout=0.2, intensity=1) as swarm:
        assert swarm.wait(30)
        assert [death.reason for death in deaths(swarm)] == [Reason.START] * 2
        assert swarm.status().given_up == (0,)


def test_nodes_need_not_report_where_no_time_is_set():
    with swarm_of(nodes.never_report, report_timeout=None) as swarm:
        assert swarm.wait_until_healthy(timeout=30)


def test_a_node_that_takes_too_much_memory_is_replaced():
    with swarm_of(nodes.grow, max_memory=70 << 20, memory_interval=0.02) as swarm:
        event = saw(swarm, EventKind.OUTGROWN)
        assert event.reason is Reason.MEMORY
        assert "bytes of resident memory" in event.detail
        saw(swarm, EventKind.HEALTHY, times=2)
        [death] = deaths(swarm)
        assert death.reason is Reason.MEMORY
        assert death.expected
        eventually(lambda: swarm.status().nodes[0].memory, "it is measured")


def test_with_overlap_an_old_node_goes_on_until_its_replacement_is_healthy():
    with swarm_of(nodes.serve, max_age=0.2, overlap=True) as swarm:
        pid_of(swarm)
        saw(swarm, EventKind.HEALTHY, times=3)
        seen = [event for event in swarm.seen if event.attempt in (1, 2)]
    order = [(event.kind, event.attempt) for event in seen]
    assert (
        order.index((EventKind.HEALTHY, 2)) < order.index((EventKind.STOPPING, 1)) < order.index((EventKind.DIED, 1))
    )


def test_without_overlap_no_two_of_one_node_live_at_once():
    with swarm_of(nodes.serve, max_age=0.05) as swarm:
        saw(swarm, EventKind.HEALTHY, times=5)
    alive = 0
    for event in swarm.seen:
        alive += event.kind in (EventKind.STARTED, EventKind.RESTARTED)
        alive -= event.kind is EventKind.DIED
        assert alive in (0, 1)


def test_what_a_node_has_left_behind_in_another_session_is_killed_with_it(tmp_path):
    path = tmp_path / "pid"
    with swarm_of(nodes.fork_away, args=(str(path),)) as swarm:
        pid_of(swarm)
        orphan = int(path.read_text())
        assert is_alive(orphan)
        swarm.signal(signal.SIGKILL)
        saw(swarm, EventKind.HEALTHY, times=2)
        eventually(lambda: not is_alive(orphan), "the orphan is killed")


def test_a_template_that_is_killed_is_replaced_and_its_nodes_come_back():
    with swarm_of(nodes.serve, 2) as swarm:
        pid_of(swarm)
        template = swarm.status().template_pid
        os.kill(template, signal.SIGKILL)
        for node in (0, 1):
            saw(swarm, EventKind.HEALTHY, node, times=2)
            assert [death.reason for death in deaths(swarm, node)] == [Reason.TEMPLATE]
        assert swarm.status().template_pid != template


def test_a_process_that_the_host_cannot_watch_is_killed_before_another_one_is_started(tmp_path):
    with swarm_of(nodes.write_and_serve, args=(str(tmp_path),)) as swarm:
        pid_of(swarm)
        channel = swarm._supervisor._processes.template.channel
        take, taken = channel.next_descriptor, []

        def lose_second():
            """Have no number left for the pidfd, which comes behind the black box."""
            taken.append(take())
            if len(taken) == 2:
                os.close(taken[1])
                return None
            return taken[-1]

        channel.next_descriptor = lose_second
        swarm.signal(signal.SIGKILL)
        assert saw(swarm, EventKind.START_FAILED).detail == "no descriptor number left for its pidfd"
        unwatched = [int(path.read_text().strip("(").split(",")[0]) for path in tmp_path.glob("0-2")]
        assert not any(map(is_alive, unwatched))
        saw(swarm, EventKind.HEALTHY, times=2)
        assert swarm.status().nodes[0].attempt == 2


def test_in_the_fork_way_there_is_no_other_template():
    with swarm_of(nodes.serve, mp_context="fork") as swarm:
        pid_of(swarm)
        os.kill(swarm.status().template_pid, signal.SIGKILL)
        assert swarm.wait(30)
        assert swarm.status().given_up == (0,)
        assert "forks only once" in swarm.status().failure


def test_a_target_that_cannot_be_loaded_in_a_node_is_given_up_at_once():
    with swarm_of(nodes.serve, args=(nodes.Unloadable(),)) as swarm:
        assert swarm.wait(30)
        assert "ImportError: there is no such thing in a node" in saw(swarm, EventKind.GAVE_UP).detail
        assert len(deaths(swarm)) == 1


def test_a_stop_does_not_wait_for_a_preload_that_takes_long():
    swarm = Swarm(nodes.serve, preload=time_out, **QUICK).start()
    eventually(lambda: swarm.status().template_pid, "there is a template")
    swarm.stop()
    assert swarm.status().phase is Phase.ENDED


def time_out():
    time.sleep(1000)


def test_a_preload_that_fails_ends_the_swarm():
    with swarm_of(nodes.serve, preload="no_such_module_at_all") as swarm:
        assert swarm.wait(30)
        assert "no_such_module_at_all" in swarm.status().failure


@pytest.mark.parametrize(("code", "shown"), [(0, 0), (5, 5), (256, 0), ("a reason", 1)])
def test_an_exit_code_is_as_the_interpreter_makes_it(code, shown, capfd):
    with swarm_of(nodes.exit_with, args=(code,), intensity=0) as swarm:
        assert swarm.wait(30)
        [death] = deaths(swarm)
        assert death.exit_status.code == shown
    assert ("a reason" in capfd.readouterr().err) == (code == "a reason")


def test_a_sigterm_of_somebody_else_is_a_failure_even_if_the_node_leaves_in_order():
    with swarm_of(nodes.serve) as swarm:
        pid_of(swarm)
        swarm.signal(signal.SIGTERM)
        saw(swarm, EventKind.HEALTHY, times=2)
        [death] = deaths(swarm)
        assert (death.exit_status.code, death.reason) == (128 + signal.SIGTERM, Reason.UNASKED)


@pytest.mark.parametrize("target", [nodes.heed_nothing_but_sigterm, nodes.stop_by_signals])
def test_sigterm_can_come_first_and_a_handler_of_the_targets_own_gets_it(target):
    args = ("",) if target is nodes.stop_by_signals else ()
    with swarm_of(target, args=args, stop_timeout=0.4, stop_order=("SIGTERM", "request")) as swarm:
        pid_of(swarm)
    [death] = deaths(swarm)
    handled = target is nodes.stop_by_signals
    assert death.exit_status.code == 0 if handled else death.exit_status.signal == signal.SIGKILL
