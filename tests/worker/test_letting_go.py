"""What a worker keeps of a task that is over: nothing, also if the exception that ended it is in its own frames."""

from __future__ import annotations

import gc
import os
import weakref

import numpy
import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from tests import calls
from tests.conditions import eventually

_held: list[weakref.ref] = []  # in a worker: of what its tasks had


class Data:
    """Stands for the megabytes that a task has."""


def hold():
    data = Data()
    _held.append(weakref.ref(data))
    return data


def still_held():
    return sum(reference() is not None for reference in _held), len(_held)


def fail_itself(_):
    data = hold()  # noqa: F841
    error = ValueError("of its own frame")
    raise error


def fail_with_a_cause(_):
    data = hold()  # noqa: F841
    try:
        raise KeyError(1)
    except KeyError as error:
        kept = error
    raise ValueError("caused") from kept


def fail_amid_another(_):
    data = hold()  # noqa: F841
    try:
        raise KeyError(1)
    except KeyError as error:
        kept = error  # noqa: F841
        raise ValueError("in its context")  # noqa: B904


def fail_as_a_group(_):
    data = hold()  # noqa: F841
    kept = []
    for _ in range(2):
        try:
            raise KeyError(1)
        except KeyError as error:
            kept.append(ExceptionGroup("inner", [error]))
    raise BaseExceptionGroup("outer", kept)


class Unpicklable(Exception):
    """Cannot be pickled, for a reason that is in its own frame."""

    def __reduce__(self):
        data = hold()  # noqa: F841
        error = ValueError("never")
        raise error


def return_what_does_not_pickle(_):
    return Unpicklable()


def raise_what_does_not_pickle(_):
    raise Unpicklable


KINDS = [
    fail_itself, fail_with_a_cause, fail_amid_another, fail_as_a_group, return_what_does_not_pickle,
    raise_what_does_not_pickle,
]  # fmt: skip


@pytest.mark.parametrize("asked", ["submit", "map", "map in chunks"])
def test_nothing_is_kept_of_a_task_that_failed(asked, way):
    """Guards against frames that live on in a cycle with their exception, with all that their tasks had."""
    with PidfdPoolExecutor(1, mp_context=way) as pool:
        pool.submit(gc.disable).result()
        for kind in KINDS:
            if asked == "submit":
                futures = [pool.submit(kind, number) for number in range(3)]
                assert all(future.exception() is not None for future in futures)
            else:
                with pytest.raises(BaseException):  # noqa: B017, PT011
                    list(pool.map(kind, range(3), chunksize=3 if asked == "map in chunks" else None))
        alive, held = pool.submit(still_held).result()
        assert held >= len(KINDS)
        assert alive == 0


def test_a_segment_is_free_again_though_its_task_failed():
    """Guards against a large call that a failed task's frames look at, so that its memory is never used again."""
    with PidfdPoolExecutor(1) as pool:
        for _ in range(4):
            assert isinstance(pool.submit(fail_with, numpy.zeros(1 << 20)).exception(), ValueError)
        assert pool.submit(mapped).result() == 1


def fail_with(array):
    error = ValueError(len(array))
    raise error


def mapped():
    with open("/proc/self/maps") as maps:
        return maps.read().count("memfd:pidfdpool-segment")


def test_exceptions_in_a_ring_are_told_once():
    """Guards against walking for ever through exceptions that hang on each other."""
    with PidfdPoolExecutor(1) as pool:
        error = pool.submit(fail_in_a_ring).exception(timeout=20)
        assert isinstance(error, KeyError)
        assert pool.submit(calls.double, 2).result(timeout=20) == 4


def fail_in_a_ring():
    first, second = KeyError(1), ValueError(os.getpid())
    first.__cause__, second.__cause__ = second, first
    raise first


def test_the_host_keeps_no_future_that_was_told():
    """However it was told: with a result, an error, a death, or that it is cancelled."""
    with PidfdPoolExecutor(1) as pool:
        careful = pool.options(retries=1, retry_on=KeyError)
        ended = [
            careful.submit(calls.double, 1),
            careful.submit(calls.raise_it, ValueError()),
            pool.submit(calls.die),
        ]
        ended.append(pool.submit(calls.double, 2))
        ended[-1].cancel()
        assert ended[0].result() == 2
        assert isinstance(ended[1].exception(), ValueError)
        assert isinstance(ended[2].exception(), WorkerCrashed)
        assert pool.submit(calls.double, 3).result() == 6
        futures = [weakref.ref(future) for future in ended]
        ended.clear()
        gc.collect()
        eventually(lambda: not any(future() for future in futures), "nobody keeps them")
