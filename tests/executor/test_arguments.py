"""What is refused, and in which words; and `map`, which is mostly arguments."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import re
import threading

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.executor import arguments
from pidfdpool.scheduler import suggestions
from pidfdpool.scheduler.policy import PoolOptions
from tests import calls
from tests.conditions import eventually, open_descriptors, run_python


@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), (70_000, ValueError), (2.5, TypeError), ("2", TypeError)]
)
def test_max_workers_must_be_a_positive_integer(value, error):
    with pytest.raises(error, match=f"max_workers must be .*{value}"):
        PidfdPoolExecutor(value)


def test_max_workers_defaults_to_the_cpus_there_are():
    assert PidfdPoolExecutor()._max_workers == PidfdPoolExecutor(None)._max_workers == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("x", TypeError)])
def test_max_tasks_per_child_must_be_a_positive_integer(value, error):
    with pytest.raises(error, match=f"max_tasks_per_child must be .*{value}"):
        PidfdPoolExecutor(1, max_tasks_per_child=value)


class Unequal(str):
    """Text that cannot be compared, as an array cannot."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, _other):
        raise ValueError("ambiguous")


def test_other_arguments_are_checked():
    with pytest.raises(TypeError, match="initializer must be a callable, not 3"):
        PidfdPoolExecutor(1, initializer=3)
    with pytest.raises(ValueError, match="on_crash must be .*not 'explode'"):
        PidfdPoolExecutor(1, on_crash="explode")
    for value in (Unequal("breaks"), [Unequal("break")], None):
        with pytest.raises(ValueError, match="on_crash must be 'isolate' or 'break', not "):
            PidfdPoolExecutor(1, on_crash=value)
    assert type(PidfdPoolExecutor(1, on_crash=Unequal("break"))._policy.on_crash) is str
    with pytest.raises(TypeError):
        PidfdPoolExecutor(1, no_such_argument=1)


def test_nothing_is_started_before_the_first_submit():
    before = threading.active_count(), len(open_descriptors())
    pool = PidfdPoolExecutor(4)
    assert (threading.active_count(), len(open_descriptors())) == before
    pool.shutdown()


def test_asking_a_context_for_its_start_method_leaves_the_hosts_default_open():
    """Multiprocessing itself is a context, and it decides for good when it is asked carelessly."""
    done = run_python("""
        import multiprocessing
        from pidfdpool import PidfdPoolExecutor
        PidfdPoolExecutor(1, mp_context=multiprocessing)
        PidfdPoolExecutor(1, mp_context=multiprocessing.context._default_context)
        print(multiprocessing.get_start_method(allow_none=True))
        multiprocessing.set_start_method("spawn")
        print(PidfdPoolExecutor(1, mp_context=multiprocessing), multiprocessing.get_start_method())
    """)
    shown = "<PidfdPoolExecutor not started, 0 of 1 workers busy, 0 tasks pending>"
    assert (done.stdout, done.stderr) == (f"None\n{shown} spawn\n", "")


def test_one_thread_per_pool():
    before = threading.active_count()
    with PidfdPoolExecutor(4) as pool:
        list(pool.map(calls.double, range(100)))
        assert threading.active_count() == before + 1


def test_map_returns_results_in_order(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        assert list(pool.map(pow, range(10), range(10))) == [n**n for n in range(10)]
        assert list(pool.map(pow, range(100), itertools.repeat(2), chunksize=7)) == [n * n for n in range(100)]
        assert list(pool.map(calls.double, [])) == []
        assert list(pool.map(calls.double, "abc", chunksize=100)) == ["aa", "bb", "cc"]


def test_map_raises_where_the_failing_result_would_have_been(way):
    with PidfdPoolExecutor(2, mp_context=way) as pool:
        for chunksize in (1, 3):
            results = pool.map(divmod, [1, 1, 1, 1], [1, 1, 0, 1], chunksize=chunksize)
            if chunksize == 1:
                assert [next(results), next(results)] == [(1, 0), (1, 0)]
            with pytest.raises(ZeroDivisionError):
                list(results)


def test_map_times_out_and_cancels_the_rest():
    with PidfdPoolExecutor(1) as pool:
        results = pool.map(calls.sleep, [0.01, 0.5, 60, 60], ["a", "b", "c", "d"], timeout=0.3)
        with pytest.raises(concurrent.futures.TimeoutError):
            list(results)
        pool.kill_workers()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunksize": 0}, ValueError, "chunksize must be >= 1, not 0"),
        ({"chunksize": -3}, ValueError, "chunksize must be >= 1, not -3"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0, not 0"),
        ({"buffersize": "x"}, TypeError, "buffersize must be an integer or None, not 'x'"),
    ],
)
def test_map_checks_its_arguments(options, error, message):
    with PidfdPoolExecutor(1) as pool, pytest.raises(error, match=message):
        pool.map(calls.double, [1], **options)


@pytest.mark.parametrize("chunksize", [1, 5])
def test_map_with_a_buffer_takes_no_more_than_it_may(chunksize):
    taken = itertools.count()
    count = -1

    def endless():
        nonlocal count
        for count in taken:  # noqa: UP028
            yield count

    with PidfdPoolExecutor(2) as pool:
        results = pool.map(calls.double, endless(), buffersize=4, chunksize=chunksize)
        assert count == 4 * chunksize - 1
        assert list(itertools.islice(results, 50)) == [2 * n for n in range(50)]
        assert count < 50 + 5 * chunksize
        results.close()


def test_an_abandoned_map_cancels_what_has_not_begun(tmp_path):
    path = tmp_path / "runs"
    with PidfdPoolExecutor(1) as pool:
        results = pool.map(calls.touch_and, [str(path)] * 51, ["sleep"] * 51, [0.01] + [0.2] * 50)
        next(results)
        del results
        pool.submit(calls.double, 1).result()
    assert len(path.read_text().split()) < 26


def test_an_executor_that_only_a_map_knows_of_finishes_it():
    results = PidfdPoolExecutor(2).map(calls.double, range(20))
    assert list(results) == [2 * n for n in range(20)]


def test_repr_tells_the_state():
    pool = PidfdPoolExecutor(2)
    assert repr(pool) == "<PidfdPoolExecutor not started, 0 of 2 workers busy, 0 tasks pending>"
    pool.submit(calls.double, 1).result()
    assert repr(pool) == "<PidfdPoolExecutor open, 0 of 2 workers busy, 0 tasks pending>"
    pool.shutdown()
    assert repr(pool) == "<PidfdPoolExecutor shut down, 0 of 2 workers busy, 0 tasks pending>"


@pytest.mark.many_times
def test_10_000_tasks_and_20_pools_leave_no_trace():
    def usage():
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return len(open_descriptors()), threading.active_count(), pages * 4096

    with PidfdPoolExecutor(2) as pool:
        list(pool.map(calls.double, range(2_000)))
    descriptors, threads, memory = usage()
    for _ in range(20):
        with PidfdPoolExecutor(2) as pool:
            list(pool.map(calls.double, range(500)))
    eventually(lambda: usage()[:2] == (descriptors, threads), "descriptors and threads are as before")
    assert usage()[2] < memory + 10_000_000, "10 MB would be 1 KB for each task"


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        (
            {"preload": 5},
            TypeError,
            "preload must be the name of a module, a callable, or an iterable of these, not 5",
        ),
        ({"preload": None}, TypeError, "preload must be the name of a module, .* not None"),
        ({"preload": ["os", 5]}, TypeError, "preload takes names of modules and a callable, not 5"),
        ({"preload": "os..path"}, ValueError, "preload takes names of modules, .* 'os..path' is none"),
        ({"preload": ["os", ""]}, ValueError, "preload takes names of modules, .* '' is none"),
        ({"preload": [print, print]}, ValueError, "preload takes at most one callable, not"),
        ({"initargs": 5}, TypeError, "initargs must be an iterable of arguments, not 5"),
        ({"initializer": print, "initargs": None}, TypeError, "initargs must be an iterable of arguments, not None"),
        ({"initializer": 5}, TypeError, "initializer must be a callable, not 5"),
        ({"mp_context": 5}, TypeError, "mp_context must be a multiprocessing context or the name of one, not 5"),
        ({"mp_context": "thread"}, ValueError, "mp_context must be one of 'fork', .* not 'thread'"),
        ({"max_workers": 2**70}, ValueError, "max_workers must be at most 65535, not 1180591620717411303424"),
        ({"intensity": 2**70}, ValueError, "intensity must be <= 9223372036854775807, not 1180591620717411303424"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_name_and_value(options, error, told):
    with pytest.raises(error, match=told):
        PidfdPoolExecutor(**options)


@pytest.mark.parametrize("way", ["map", "map_unordered", "amap"])
def test_what_map_cannot_work_with_is_refused_with_its_name_and_value(way):
    pool = PidfdPoolExecutor(1)
    for options, error, told in (
        ({"chunksize": 1.5}, TypeError, "chunksize must be an integer or None, not 1.5"),
        ({"chunksize": "2"}, TypeError, "chunksize must be an integer or None, not '2'"),
        ({"chunksize": 0}, ValueError, "chunksize must be >= 1, not 0"),
        ({"chunksize": 2**70}, ValueError, "chunksize must be <= 9223372036854775807, not 1180591620717411303424"),
        ({"buffersize": 1.5}, TypeError, "buffersize must be an integer or None, not 1.5"),
        ({"buffersize": 0}, ValueError, "buffersize must be None or > 0, not 0"),
        ({"timeout": "x"}, TypeError, "timeout must be a number of seconds, or None, not 'x'"),
    ):
        for submitter in (pool, pool.options(timeout=5)):
            with pytest.raises(error, match=told):
                getattr(submitter, way)(abs, [1], **options)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_worker", "'max_workers'"),
        ("workers", "'max_workers' or 'min_workers'"),
        ("n_jobs", "'max_workers'"),
        ("retry", "'retries' or 'retry_on'"),
        ("max_retries", "'retries'"),
        ("maxtasksperchild", "'max_tasks_per_child'"),
        ("context", "'mp_context' or 'context_vars'"),
        ("mp_ctx", "'mp_context'"),
        ("initarg", "'initargs'"),
        ("initialiser", "'initializer'"),
        ("pre_load", "'preload'"),
        ("memory_limit", "'max_memory_per_child' or 'memory_interval'"),
        ("grace_period", "'grace' or 'period'"),
        ("idle", "'idle_timeout'"),
        ("time_out", "'timeout'"),
    ],
)
def test_a_name_that_does_not_exist_suggests_the_right_one(name, meant):
    told = f"unexpected keyword argument {name!r} (its value is 7); did you mean {meant}?"
    with pytest.raises(TypeError, match=re.escape(told)):
        PidfdPoolExecutor(**{name: 7})


def test_every_option_is_suggested_for_itself_with_a_slip_of_the_finger():
    known = [*PoolOptions.__annotations__, "max_workers", "mp_context", "initializer", "initargs", "preload"]
    for name in known:
        slips = {name[:-1], name[1:], name.replace("_", ""), name + "s", name[:2] + name[3:], name.title()} - {*known}
        for slip in slips:
            assert suggestions.suggestions(slip, known)[0] == name, slip
    for name in ("min_worker", "max_work", "prefetches"):
        with pytest.raises(TypeError, match=r"'(min_workers|max_workers|prefetch)' is one of the whole pool"):
            PidfdPoolExecutor(1).options(**{name: 7})


# ---- the checks by themselves ------------------------------------------------------------------------------------


def test_as_many_workers_as_this_process_may_use_or_as_there_are_if_that_is_not_told(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5})
    assert arguments.checked_max_workers(None) == 3
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set())
    assert arguments.checked_max_workers(None) == 1

    def refuse(_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_getaffinity", refuse)
    for there, expected in ((7, 7), (None, 1), (10**6, 65535)):
        monkeypatch.setattr(os, "cpu_count", lambda there=there: there)
        assert arguments.checked_max_workers(None) == expected


def test_what_is_like_an_integer_is_a_number_of_workers():
    class Three:
        def __index__(self):
            return 3

    assert arguments.checked_max_workers(Three()) == 3
    assert arguments.checked_max_workers(65535) == 65535


def test_workers_to_start_are_at_most_those_there_may_be():
    assert arguments.checked_prestart(None, 5, True, None) == (5, None)
    assert arguments.checked_prestart(3, 5, False, 1.5) == (3, 1.5)
    assert arguments.checked_prestart(5, 5, False, 0) == (5, 0)
    for given, told in (
        ((6, 5, True, None), "workers"),
        ((0, 5, True, None), "workers"),
        (("3", 5, True, None), "workers"),
        ((3, 5, "yes", None), "wait"),
        ((3, 5, True, -1.0), "timeout"),
        ((3, 5, True, "soon"), "timeout"),
    ):
        with pytest.raises((TypeError, ValueError), match=told):
            arguments.checked_prestart(*given)


def test_a_context_is_one_of_multiprocessings_or_a_name():
    import multiprocessing

    for method, way in (("fork", "fork"), ("spawn", "exec"), ("forkserver", "exec")):
        assert arguments.checked_start_method(method) == way
        assert arguments.checked_start_method(multiprocessing.get_context(method)) == way
    assert arguments.checked_start_method(None) == "any"

    class Undecided:
        def get_start_method(self, allow_none=False):
            return None if allow_none else "fork"

    default = arguments.checked_start_method(multiprocessing.get_all_start_methods()[0])
    assert arguments.checked_start_method(Undecided()) == default


def test_what_is_preloaded_is_names_and_at_most_one_callable_in_whichever_order():
    assert arguments.checked_preload(()) == ((), None)
    assert arguments.checked_preload("os.path") == (("os.path",), None)
    assert arguments.checked_preload(print) == ((), print)
    assert arguments.checked_preload(iter(["os", print, "re"])) == (("os", "re"), print)
    assert arguments.checked_preload([]) == ((), None)


def test_an_initializer_has_arguments_that_are_read_once():
    assert arguments.checked_initializer(None, ()) is None
    assert arguments.checked_initializer(None, None) is None
    assert arguments.checked_initializer(None, [1]) is None
    assert arguments.checked_initializer(print, iter([1, 2])) == (print, (1, 2))
    assert arguments.checked_initializer(print, "ab") == (print, ("a", "b"))


def test_what_a_template_needs_to_start_comes_together():
    assert arguments.checked_start("fork", print, [1], ["os", len]) == {
        "way": "fork", "preload": ("os",), "preload_call": len, "initializer": (print, (1,))
    }  # fmt: skip
