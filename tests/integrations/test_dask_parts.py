"""The parts of the door for Dask that need no cluster; most of them need no dask either."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import types

import pytest

import pidfdpool
from pidfdpool.integrations.dask_cluster import calls, inputs, options, payloads, requests
from pidfdpool.integrations.dask_cluster.futures import ClusterFuture, opened
from pidfdpool.integrations.dask_cluster.node_pool import NodePool, lost, name_node
from pidfdpool.integrations.dask_cluster.pace import AHEAD, GROWTH, LARGEST, Pace
from pidfdpool.integrations.dask_cluster.requests import Answer
from tests import calls as work
from tests.conditions import eventually, run_python


class TestOptions:
    def check(self, **given):
        options.check_names("DaskExecutor", given, options.OF_EXECUTOR)
        options.check_values(None, given)

    @pytest.mark.parametrize("name", sorted(options.OF_EXECUTOR))
    def test_those_that_make_no_sense_are_refused_by_name(self, name):
        with pytest.raises(TypeError, match=rf"DaskExecutor\(\).*'{name}' \(its value is 5\); it makes no sense"):
            self.check(**{name: 5})

    def test_those_that_do_not_exist_are_refused_with_a_suggestion(self):
        with pytest.raises(TypeError, match="did you mean 'timeout'"):
            self.check(timeuot=5)

    def test_wrong_values_are_refused(self):
        with pytest.raises(ValueError, match="timeout must be"):
            self.check(timeout=-1)
        with pytest.raises(ValueError, match="grace must not exceed timeout"):
            options.check_refinement({"timeout": 3}, {"grace": 5})

    def test_views_take_options_of_tasks_only(self):
        with pytest.raises(TypeError, match="of the whole pool"):
            options.check_names("options", {"max_age": 5}, options.OF_EXECUTOR, for_tasks=True)

    def test_more_workers_than_this_machine_has_may_be_kept(self):
        self.check(min_workers=500)
        pool = NodePool("tcp://here:1", 2, {"min_workers": 500})
        assert pool._settings["min_workers"] == 2

    def test_all_others_are_accepted(self):
        self.check(timeout=5, retries=2, max_tasks_per_child=3, capture_stderr=True, preload="json")

    def test_rules_tell_the_pools_errors_from_the_users(self):
        rules = options.rules({"retries": 2, "retry_on": (KeyError, pidfdpool.TaskTimeout), "priority": 3})
        assert rules.options["retry_on"] == (pidfdpool.TaskTimeout, calls.TryAgain)
        assert payloads.loads(rules.retry_on) == (KeyError,)
        assert (rules.retries, rules.survives_loss, rules.priority) == (2, False, 3)
        assert options.rules({"retries": 1}).survives_loss
        assert options.rules({"retries": 1, "retry_on": Exception}).survives_loss


class TestPayloads:
    @pytest.mark.parametrize("value", [5, b"x" * 200_000, bytearray(200_000), {"a": [1, None]}])
    def test_they_arrive_as_they_were(self, value):
        payload = pickle.loads(pickle.dumps(payloads.dumps(value), 5))
        assert payloads.loads(payload) == value

    def test_buffers_are_left_out_and_copied_when_asked(self):
        numpy = pytest.importorskip("numpy")
        array = numpy.arange(100_000)
        payload = payloads.dumps(array, snapshot=True)
        beside: list = []
        assert len(pickle.dumps(payload, 5, buffer_callback=beside.append)) < 1000
        assert len(beside) == 1
        array[:] = 0
        assert payloads.loads(payload).tolist() == list(range(100_000))
        assert payload.__sizeof__() > 800_000

    def test_what_is_local_goes_by_value(self):
        factor = 3
        assert payloads.loads(payloads.dumps(lambda value: value * factor))(2) == 6


class TestCalls:
    def made(self, function, *arguments, **keywords):
        return opened(calls.Call(None, payloads.dumps((function, arguments, keywords)), None, 0)())

    def test_a_result_and_an_error(self):
        assert self.made(pow, 2, 5) == (32, None)
        value, error = self.made(int, "x")
        assert value is None
        assert isinstance(error, ValueError)
        assert "invalid literal" in str(error.__cause__)

    def test_an_error_that_does_not_pickle_is_told_of(self):
        def fail():
            raise ValueError(lambda: None, iter(()).__class__, (part for part in ()))

        _, error = self.made(fail)
        assert isinstance(error, pidfdpool.PayloadError)
        assert "ValueError" in str(error)

    def test_what_cannot_be_rebuilt_here_is_an_error(self):
        _, error = opened(calls.Made(True, payloads.Payload(b"nonsense"), 0.0))
        assert isinstance(error, pidfdpool.PayloadError)

    def test_the_function_of_a_map_is_opened_once(self):
        function = payloads.dumps(lambda box: box)
        first, second = (calls._function(function) for _ in range(2))
        assert first is second
        assert calls._function(payloads.dumps(len)) is len

    def test_it_bears_the_name_of_the_users_function(self):
        call = calls.Call(None, payloads.dumps((work.die, (), {})), None, 0, "tests.calls.die")
        with pidfdpool.PidfdPoolExecutor(1) as pool:
            with pytest.raises(pidfdpool.WorkerCrashed, match=r"\(tests\.calls\.die\)"):
                pool.submit(call).result()


class TestNodePool:
    def test_a_broken_pool_is_replaced_and_errors_name_the_node(self):
        pool = NodePool("tcp://here:1", 1, {"on_crash": "break"})
        for _ in range(2):
            error = pool.submit(work.die).exception(60)
            assert isinstance(error, pidfdpool.WorkerCrashed)
            # By a callback, so who waits for the result may be a moment earlier.
            eventually(lambda: getattr(error, "node", None) == "tcp://here:1", "it names the node")
            eventually(lambda: str(error).startswith("on the node tcp://here:1: "), "its text, too")
            eventually(lambda: pool._pool.stats().broken is not None, "it is broken")
            assert pool.submit(work.double, 2).result(60) == 4
        pool.kill()
        with pytest.raises(RuntimeError):
            pool.submit(work.double, 2)

    def test_a_call_of_dasks_is_named_by_its_key(self):
        pool = NodePool("tcp://here:1", 1, {})
        with pytest.raises(pidfdpool.WorkerCrashed, match="the-key"):
            pool.submit(work_of_dask, types.SimpleNamespace(key="the-key")).result(60)
        pool.kill()

    def test_errors_are_named_once_and_survive_pickling(self):
        error = lost("a.b", 3, ["tcp://one:1", "tcp://two:2"])
        name_node(error, "tcp://three:3")
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.node, copy.attempt, copy.task_id, copy.task) == ("tcp://two:2", 2, 3, "a.b")
        assert "tcp://one:1, tcp://two:2" in str(copy)
        assert "three" not in str(copy)


def work_of_dask(_task):
    work.die()


class TestPace:
    def test_unknown_calls_are_sent_one_by_one(self):
        assert Pace().next(1000, 2) == 1

    def test_short_calls_grow_into_chunks_by_steps(self):
        pace = Pace()
        pace.note(1, 1e-6, 50)
        assert pace.next(10**6, 2) == GROWTH
        pace.note(LARGEST, 1e-3, 50 * LARGEST)
        assert pace.next(10**6, 2) == LARGEST

    def test_long_calls_stay_alone(self):
        pace = Pace()
        pace.note(1, 0.5, 50)
        assert pace.next(1000, 2) == 1

    def test_few_calls_are_shared_out(self):
        pace = Pace()
        pace.note(50, 50e-6, 50)
        assert pace.next(40, 2) == 40 // (AHEAD * 2)
        assert pace.next(3, 2) == 1

    def test_heavy_arguments_are_not_put_together(self):
        pace = Pace()
        pace.note(8, 8e-6, 8 * 2_000_000)
        assert pace.next(1000, 1) == 2


class TestInputs:
    def taken(self, iterable):
        found: list = []
        return found, inputs.Inputs(iterable, found.append, lambda: found.append("end"))

    def test_they_are_taken_as_asked(self):
        found, source = self.taken(inputs.calls_of(([1, 2, 3], "abc"), star=False))
        source.take(2)
        assert found == [(1, "a"), (2, "b")]
        source.take(None)
        assert found == [(1, "a"), (2, "b"), (3, "c"), "end"]
        source.raise_failure()

    def test_an_error_is_kept(self):
        found, source = self.taken(inputs.calls_of((iter([1, 2]), map(int, ["5", "x"])), star=False))
        source.take(None)
        assert found == [(1, 5), "end"]
        with pytest.raises(ValueError, match="'x'"):
            source.raise_failure()

    def test_asynchronous_and_ordinary_ones_are_mixed_and_closed(self):
        closed = []

        async def letters():
            try:
                for letter in "abcdef":
                    yield letter
            finally:
                closed.append(True)

        async def main():
            found, source = self.taken(inputs.asynchronous_calls((letters(), range(9)), star=False))
            await source.take_asynchronously(2)
            await source.close()
            return found

        assert asyncio.run(main()) == [("a", 0), ("b", 1)]
        assert closed == [True]


BEGUN = {"node": "tcp://a:1", "slot": 0, "generation": 1, "pid": 5, "attempt": 1, "started_at": 1.0}


class Sender:
    def __init__(self):
        self.told = []

    def cancel(self, key):
        self.told.append(("cancel", key))
        return True

    def kill(self, key, node):
        self.told.append(("kill", key, node))


class TestFutures:
    def future(self, **options):
        sender = Sender()
        future = ClusterFuture(sender, **{"cancel_kills": False, **options})
        future._sent(("f", 1))
        return future, sender

    def test_one_that_waits_is_cancelled(self):
        future, sender = self.future()
        assert future.cancel()
        assert future.cancel()
        assert sender.told == [("cancel", ("f", 1))]
        assert concurrent.futures.wait([future], 0).done

    def test_one_that_runs_is_killed_and_not_cancelled(self):
        future, sender = self.future()
        future._begun(BEGUN)
        assert future.running()
        assert not future.cancel()
        assert future.kill()
        assert sender.told == [("kill", ("f", 1), "tcp://a:1")]
        future._take(Answer("tcp://a:1", [calls.Made(True, payloads.dumps(5), 0.1)], (0, 1, 5), 1, 1.0))
        assert future.result() == 5
        assert not future.kill()
        assert (future.worker.pid, future.attempt) == (5, 1)

    def test_cancel_kills_does_both(self):
        future, sender = self.future(cancel_kills=True)
        future._begun(BEGUN)
        assert future.cancel()
        assert sender.told == [("cancel", ("f", 1)), ("kill", ("f", 1), "tcp://a:1")]

    def test_it_is_not_copied(self):
        with pytest.raises(TypeError, match="cannot copy"):
            pickle.dumps(self.future()[0])


def test_keys_of_requests_are_told_from_dasks():
    key = (f"square{requests.MARK}abc", 3)
    assert requests.is_ours(key)
    assert requests.owner_of(key) == "abc"
    for other in ("square-abc", ("x", 3), ("x", 3, 4), 5, None):
        assert not requests.is_ours(other)


class TestReruns:
    @pytest.fixture
    def scheduler(self):
        pytest.importorskip("distributed")
        from pidfdpool.integrations.dask_cluster.reruns import Reruns

        plugin = Reruns()
        scheduler = types.SimpleNamespace(tasks={}, workers={"tcp://b:2": None}, plugin=plugin)
        asyncio.run(plugin.start(scheduler))
        scheduler.key = (f"f{requests.MARK}abc", 1)
        scheduler.task = types.SimpleNamespace(
            annotations=None, processing_on=types.SimpleNamespace(address="tcp://a:1")
        )
        scheduler.tasks[scheduler.key] = scheduler.task
        return scheduler

    def test_a_lost_node_is_noted_for_the_next(self, scheduler):
        transition = scheduler.plugin.transition
        transition(scheduler.key, "waiting", "processing")
        transition(scheduler.key, "processing", "released", stimulus_id="x")
        assert scheduler.task.annotations == {requests.LOST: ["tcp://a:1"]}
        scheduler.task.processing_on.address = "tcp://b:2"
        transition(scheduler.key, "waiting", "processing")
        transition(scheduler.key, "memory", "released", stimulus_id="x")
        assert scheduler.task.annotations == {requests.LOST: ["tcp://a:1", ""]}
        transition(scheduler.key, "released", "forgotten")
        assert not scheduler.plugin._nodes

    def test_what_was_given_back_is_not_lost(self, scheduler):
        scheduler.plugin.transition(scheduler.key, "waiting", "processing")
        scheduler.plugin.transition(scheduler.key, "processing", "waiting", stimulus_id="worker-closing-1")
        assert scheduler.task.annotations is None

    def test_tasks_of_dasks_are_left_alone(self, scheduler):
        scheduler.plugin.transition("x-1", "processing", "released", stimulus_id="x")
        assert not scheduler.plugin._nodes


class TestMissing:
    def test_the_extra_that_is_missing_is_named(self):
        ran = run_python("import sys; sys.modules['distributed'] = None\nimport pidfdpool.dask")
        assert ran.returncode == 1
        assert "pip install 'pidfdpool[dask]'" in ran.stderr

    def test_a_version_that_is_too_old_is_named(self):
        ran = run_python(
            "import sys, types; sys.modules['distributed'] = types.SimpleNamespace(__version__='2024.12.1')\n"
            "import pidfdpool.dask"
        )
        assert ran.returncode == 1
        assert "needs distributed 2025.1.0 or newer (distributed 2024.12.1 was found)" in ran.stderr

    def test_the_workers_of_the_pool_load_nothing_of_dasks(self):
        ran = run_python(
            "import sys, pidfdpool.integrations.dask_cluster.calls\n"
            "print(sorted({'distributed', 'dask', 'tornado'} & set(sys.modules)))"
        )
        assert ran.stdout == "[]\n"


class TestAddresses:
    @pytest.fixture
    def door(self):
        pytest.importorskip("distributed")
        import pidfdpool.dask

        return pidfdpool.dask

    def test_nothing_listens_there(self, door):
        with pytest.raises(ConnectionError, match=r"'tcp://127\.0\.0\.1:9' within 1 s"):
            door.open_cluster("tcp://127.0.0.1:9", connect_timeout=1)

    @pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1", "http://127.0.0.1:9", "127.0.0.1:abc"])
    def test_it_is_none(self, door, address):
        with pytest.raises(ValueError, match=f"not '{address}'"):
            door.open_cluster(address)

    def test_it_is_no_text(self, door):
        with pytest.raises(TypeError, match="not 5"):
            door.open_cluster(5)

    def test_options_are_checked_first(self, door):
        with pytest.raises(TypeError, match="open_cluster.*timeuot"):
            door.open_cluster("tcp://127.0.0.1:9", timeuot=3)

    def test_a_client_is_wanted(self, door):
        with pytest.raises(TypeError, match=r"distributed\.Client, not 5"):
            door.DaskExecutor(5)

    def test_the_plugin_is_checked_where_it_is_made(self, door):
        with pytest.raises(TypeError, match="max_pending.*event loop"):
            door.PidfdPoolPlugin(max_pending=5)
        with pytest.raises(ValueError, match="executor must not be 'actor'"):
            door.PidfdPoolPlugin(executor="actor")
        with pytest.raises(ValueError, match="max_workers"):
            door.PidfdPoolPlugin(0)
        with pytest.raises(TypeError, match="is a SimpleNamespace"):
            door.PidfdPoolPlugin().setup(types.SimpleNamespace())
