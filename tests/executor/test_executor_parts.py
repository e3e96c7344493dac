"""The executor by itself: what each method asks of its pool. With a pool that takes notes."""

from __future__ import annotations

import asyncio
import inspect
import signal
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool import Options, PidfdPoolExecutor
from pidfdpool.executor import lifecycle
from pidfdpool.executor.context_vars import ContextFuture
from pidfdpool.executor.futures import Future
from tests import calls
from tests.conditions import run_python
from tests.executor.context_variables import REQUEST
from tests.executor.taking_pool import Recipient, TakingPool


class Own:
    """In the place of the executor's own pool."""

    def __init__(self):
        self.notes, self.subscribers, self.maps = [], [], set()
        self.max_workers, self.pool, self.is_open = 4, None, True
        self.opened = TakingPool()
        self.opened.starter = SimpleNamespace(prestart=self._prestart)
        self.interrupted = []

    def open(self, owner):
        self.notes.append(("open", owner))
        return self.opened

    def _prestart(self, count, *, wait, timeout):
        self.notes.append(("prestart", count, wait, timeout))
        return 3

    def shutdown(self, *, wait, cancel):
        self.notes.append(("shutdown", wait, cancel))
        if self.interrupted:
            raise self.interrupted.pop()

    async def aclose(self, *, cancel):
        self.notes.append(("aclose", cancel))
        if self.interrupted:
            raise self.interrupted.pop()

    def end_workers(self, number):
        self.notes.append(("end", number))

    def resize(self, size):
        self.notes.append(("resize", size))

    def observe(self, observer):
        self.notes.append(("observe", observer))
        return "what ends it"

    def description(self):
        return "as it is"


def made(**options):
    executor = PidfdPoolExecutor(4, **options)
    executor._own = Own()
    return executor, executor._own


def test_a_call_is_submitted_to_the_pool_and_waits_for_room():
    executor, own = made(timeout=5.0)
    future = executor.submit(calls.double, 1, key=2)
    (taken,) = own.opened.taken
    assert own.notes == [("open", executor)]
    assert (taken.recipient, taken.call, taken.wait) == (future, (calls.double, (1,), {"key": 2}), True)
    assert taken.policy is executor._policy
    assert type(future) is Future


def test_the_future_of_a_call_with_context_variables_has_its_context():
    assert type(made(context_vars=[REQUEST])[0].submit(calls.double, 1)) is ContextFuture


@pytest.mark.parametrize("wait", [False, True])
def test_what_others_submit_has_the_policy_that_they_choose(wait):
    executor, own = made()
    recipient, policy = Recipient(), executor._policy.refined({"priority": 3})
    executor._submit_for(recipient, policy, calls.double, (1,), {"key": 2}, wait=wait)
    (taken,) = own.opened.taken
    assert (taken.recipient, taken.call) == (recipient, (calls.double, (1,), {"key": 2}))
    assert (taken.policy, taken.wait) == (policy, wait)


def test_a_map_is_registered_when_there_is_a_pool():
    executor, own = made()
    own.max_workers = 7
    assert executor._register_map("a map") == (7, own.opened)
    assert own.maps == {"a map"}


def test_the_end_is_passed_on_as_it_was_asked_for():
    executor, own = made()
    executor.shutdown()
    executor.shutdown(False)
    executor.shutdown(wait=False, cancel_futures=True)
    executor.terminate_workers()
    executor.kill_workers()
    asyncio.run(executor.aclose())
    asyncio.run(executor.aclose(cancel_futures=True))
    assert own.notes == [
        ("shutdown", True, False), ("shutdown", False, False), ("shutdown", False, True),
        ("end", signal.SIGTERM), ("end", signal.SIGKILL), ("aclose", False), ("aclose", True),
    ]  # fmt: skip


def leave(executor, error):
    with executor as same:
        assert same is executor
        if error is not None:
            raise error


def leave_async(executor, error):
    async def block():
        async with executor as same:
            assert same is executor
            if error is not None:
                raise error

    asyncio.run(block())


KILL = ("end", signal.SIGKILL)


@pytest.mark.parametrize(("leave", "end"), [(leave, ("shutdown", True, False)), (leave_async, ("aclose", False))])
@pytest.mark.parametrize("error", [None, ValueError(), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("interrupt", [None, KeyboardInterrupt()], ids=repr)
def test_a_block_ends_it_and_after_ctrl_c_kills_what_runs(leave, end, error, interrupt):
    executor, own = made()
    if interrupt is not None:
        own.interrupted.append(interrupt)
    expected = interrupt or error
    if expected is None:
        leave(executor, error)
    else:
        with pytest.raises(type(expected)):
            leave(executor, error)
    first = [KILL, end] if isinstance(error, KeyboardInterrupt) else [end]
    assert own.notes == [*first, *([KILL, end] if interrupt is not None else [])]


def test_what_fails_or_is_cancelled_at_the_end_of_a_block_kills_nothing():
    for error in (LookupError(), asyncio.CancelledError()):
        executor, own = made()
        own.interrupted.append(error)

        async def block(executor=executor):
            async with executor:
                pass

        with pytest.raises(type(error)):
            asyncio.run(block())
        assert own.notes == [("aclose", False)]


# ---- beyond the standard ------------------------------------------------------------------------------------------


def test_prestart_asks_for_all_workers_or_so_many_and_waits_as_it_is_told():
    executor, own = made()
    assert executor.prestart() == 3
    assert executor.prestart(2, wait=False, timeout=1.5) == 3
    asked = [note for note in own.notes if note[0] == "prestart"]
    assert asked == [("prestart", 4, True, None), ("prestart", 2, False, 1.5)]
    assert own.notes[0] == ("open", executor)
    own.max_workers = 6
    executor.prestart()
    assert own.notes[-1][1] == 6, "as many as there may be now"
    with pytest.raises(ValueError, match="workers"):
        executor.prestart(7)


def test_a_size_is_checked_and_passed_on():
    executor, own = made(min_workers=2)
    for size in (1, 0, -1, "3", 70_000):
        with pytest.raises((ValueError, TypeError)):
            executor.resize(size)
    assert own.notes == []
    executor.resize(2)
    executor.resize(9)
    assert own.notes == [("resize", 2), ("resize", 9)]


def test_a_subscription_ends_once():
    executor, own = made()
    told = []

    def subscribe(name):
        return executor.subscribe(lambda death: told.append((name, death)))

    end_first, end_second = subscribe("first"), subscribe("second")
    for end, expected in ((end_first, ["first", "second"]), (end_first, ["second"]), (end_second, ["second"])):
        told.clear()
        for subscriber in own.subscribers:
            subscriber("a death")
        assert told == [(name, "a death") for name in expected]
        end()
    assert own.subscribers == []


def test_an_observer_is_passed_on():
    executor, own = made()
    assert executor.observe("an observer") == "what ends it"
    assert own.notes == [("observe", "an observer")]


def test_a_view_has_the_executors_rules_and_its_own():
    executor, _ = made(timeout=5.0)
    view = executor.options(retries=2)
    assert type(view) is Options
    assert view._executor is executor
    assert (view._policy.timeout, view._policy.retries) == (5.0, 2)
    assert executor._policy.retries == 0


def test_before_there_is_a_pool_there_is_nothing_to_be_seen():
    executor, own = made()
    own.max_workers = 7
    stats = executor.stats()
    assert (stats.size, stats.submitted, stats.broken) == (7, 0, None)
    assert executor.workers() == ()
    assert own.notes == [], "and nothing is made for a look"


class Told(Exception):
    """Raised by a pool that is to tell its observers."""


class Asked(Exception):
    """Raised by a pool whose state is asked for."""


def test_a_look_is_at_the_pool_that_there_is_and_has_observers_told_what_is_new():
    def tell_observers():
        raise Told

    class Pool:
        def tell_observers(self):
            """There is nothing new."""

        @property
        def core(self):
            raise Asked

    executor, own = made()
    own.pool = Pool()
    for look in (executor.stats, executor.workers):
        with pytest.raises(Asked):
            look()
    own.pool.tell_observers = tell_observers
    with pytest.raises(Told):
        executor.stats()


def test_a_call_that_is_awaited_returns_its_result():
    async def main():
        executor, own = made()
        calling = asyncio.ensure_future(executor.run(calls.double, 1, key=2))
        await asyncio.sleep(0)
        (taken,) = own.opened.taken
        assert (taken.call, taken.policy, taken.wait) == ((calls.double, (1,), {"key": 2}), executor._policy, False)
        taken.recipient._resolve("a result", None)
        assert await calling == "a result"

    asyncio.run(main())


def test_a_block_hides_no_error():
    executor, _ = made()
    assert executor.__exit__(None, None, None) is False
    assert asyncio.run(executor.__aexit__(None, None, None)) is False


@pytest.mark.parametrize("name", ["submit", "run", "stream", "shutdown", "aclose", "map", "map_unordered", "amap"])
def test_a_view_can_be_called_as_the_executor_can(name):
    theirs, ours = (inspect.signature(getattr(kind, name)).parameters for kind in (PidfdPoolExecutor, Options))
    assert [str(each) for each in theirs.values()] == [str(each) for each in ours.values()]


def test_what_is_not_said_is_as_the_documents_have_it():
    assert inspect.signature(PidfdPoolExecutor.stream).parameters["buffersize"].default == 1000
    assert inspect.signature(PidfdPoolExecutor.trace).parameters["max_events"].default == 1_000_000
    shutdown = inspect.signature(PidfdPoolExecutor.shutdown).parameters
    assert (shutdown["wait"].default, shutdown["cancel_futures"].default) == (True, False)


@pytest.mark.parametrize("look", ["stats", "workers"])
def test_a_look_detects_a_fork(look, monkeypatch):
    noticed = []
    monkeypatch.setattr(lifecycle, "detect_fork", lambda: noticed.append(1))
    getattr(made()[0], look)()
    assert noticed == [1]


@pytest.mark.parametrize("number", [0, -5, 1.5, "many", None])
def test_a_trace_has_a_limit_that_makes_sense(number, tmp_path):
    with pytest.raises((ValueError, TypeError), match="max_events"):
        made()[0].trace(str(tmp_path / "file"), max_events=number)
    assert made()[0].trace(str(tmp_path / "file"), max_events=1) is not None


def test_it_shows_its_state_also_if_it_was_never_made():
    assert repr(made()[0]) == "<PidfdPoolExecutor as it is>"
    assert repr(PidfdPoolExecutor.__new__(PidfdPoolExecutor)) == "<PidfdPoolExecutor not initialized>"


def test_what_libraries_read_is_that_of_its_pool():
    executor, own = made()
    own.max_workers, own.is_open, own.pool = 7, "whether it is open", "a pool"
    assert (executor._max_workers, executor._is_open(), executor._pool) == (7, "whether it is open", "a pool")
    context = object.__new__(type("Context", (), {"get_start_method": lambda _self, allow_none: "spawn"}))
    assert PidfdPoolExecutor(1, context)._mp_context is context


def test_who_refers_to_it_weakly_does_not_keep_it():
    lost = []
    executor = PidfdPoolExecutor(1)
    find = executor._submitter_ref(lost.append)
    assert find() is executor
    assert isinstance(find, weakref.ref)
    del executor
    assert find() is None
    assert lost == [find]


def test_a_name_that_does_not_exist_is_refused_in_the_name_of_the_class():
    class Special(PidfdPoolExecutor):
        """Somebody's."""

    with pytest.raises(TypeError, match="Special.*time_out"):
        Special(1, time_out=3)


def test_the_recipe_has_what_was_given_and_what_workers_have_to_know():
    executor = PidfdPoolExecutor(
        3, "fork", print, [1, 2], preload=["json", len], capture_stderr=True, threads_per_worker=1
    )
    recipe = executor._own.recipe
    assert (recipe.fork, recipe.initializer, recipe.preload, recipe.preload_call) == (
        True, (print, (1, 2)), ("json",), len
    )  # fmt: skip
    assert (recipe.capture_stderr, recipe.threads, recipe.pool_size) == (True, 1, 3)
    assert executor._max_workers == 3


def test_what_the_first_submit_needs_is_loaded_by_the_constructor_and_nothing_else():
    """At the first submit no file may be readable any more; and who makes an executor does not wait for the rest."""
    ran = run_python(
        """
        import sys
        from pidfdpool import PidfdPoolExecutor

        LATER = ("asyncio", "inspect", "multiprocessing.popen_fork", "pidfdpool.executor.mapping",
                 "pidfdpool.template.preimports", "pidfdpool.template.guard", "pidfdpool.loop.log_relay",
                 "pidfdpool.worker.log_forwarding")
        seen = set()
        for options in ({}, {"mp_context": "spawn", "preload": "json"}, {"mp_context": "fork"},
                        {"mp_context": "fork", "preload": "json"}, {"forward_logs": True}):
            PidfdPoolExecutor(1, **options)
            loaded = {name for name in LATER if name in sys.modules} - seen
            print(*sorted(loaded), sep=",")
            seen |= loaded
        for name in [name for name in sys.modules if name.startswith("pidfdpool.template.guard")]:
            del sys.modules[name]
        PidfdPoolExecutor(1, "fork", preload=print)
        print("pidfdpool.template.guard" in sys.modules)
        """
    )
    assert (ran.stdout.split("\n"), ran.stderr) == (
        [
            "",
            "",
            "pidfdpool.template.preimports",
            "pidfdpool.template.guard",
            "pidfdpool.loop.log_relay,pidfdpool.worker.log_forwarding",
            "True",
            "",
        ],
        "",
    )
