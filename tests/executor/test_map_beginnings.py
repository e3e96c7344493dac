"""A map that begins while its executor is shut down: it is made as a whole, or refused, and never half ready."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.serialization import payload
from tests import calls
from tests.conditions import eventually
from tests.executor.played_maps import Played, adaptive, bounded
from tests.map_calls import taken


class PickledWhile:
    """A function that calls another one when it is pickled."""

    def __init__(self, function):
        self.function = function

    def __reduce__(self):
        self.function()
        return _double_function, ()


def _double_function():
    return calls.double


def begin(kind, played, function, count):
    return (
        adaptive(played, range(count), function=function)
        if kind is adaptive
        else bounded(played, count, range(count), function=function)
    )


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_what_is_submitted_before_a_shutdown_has_its_function(kind):
    """The executor is shut down by another thread while the function is pickled. That thread waits for the map."""
    played, threads = Played(), []

    def shut_down():
        (made,) = played.maps
        threads.append(threading.Thread(target=made.submit_rest))
        threads[0].start()
        eventually(lambda: made._turns.wanted, "it asks for all")

    made = begin(kind, played, PickledWhile(shut_down), 50)
    threads[0].join(20)
    assert played.calls() == list(range(50)), "all that may run, though only four calls were to run at first"
    assert all(payload.loads([task.arguments[0]]) is calls.double for task in played.tasks)
    played.answer()
    assert list(made.results(None)) == list(range(50))


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_what_shuts_down_in_the_midst_of_the_beginning_does_not_wait_for_it(kind):
    """As a signal handler does, which has interrupted the thread that begins the map."""
    played, told = Played(), []
    made = begin(kind, played, PickledWhile(lambda: told.append(played.maps[0].submit_rest())), 50)
    assert told == [False]
    assert played.calls() == list(range(50))
    assert all(payload.loads([task.arguments[0]]) is calls.double for task in played.tasks)
    played.answer()
    assert list(made.results(None)) == list(range(50))


class ShutDownAtOnce(Played):
    def _register_map(self, registered):
        assert registered.submit_rest() is False, "it has not begun"
        return super()._register_map(registered)


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_a_shutdown_before_a_map_is_ready_has_it_submit_all_as_soon_as_it_is(kind):
    played = ShutDownAtOnce()
    made = begin(kind, played, calls.double, 50)
    assert played.calls() == list(range(50))
    played.answer()
    assert list(made.results(None)) == list(range(50))


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_a_shutdown_is_not_told_what_a_map_could_not_submit_but_its_consumer_is(kind):
    played = Played()
    made = begin(kind, played, calls.double, 50)
    played.refusal = refusal = RuntimeError("refused")
    assert made.submit_rest() is True
    played.refusal = None
    played.answer()
    assert taken(made.results(None)) == ([0, 1, 2, 3], refusal)
    assert len(played.tasks) == 4


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_a_map_that_is_cancelled_while_it_begins_is_refused_with_that(kind):
    played = Played()
    with pytest.raises(CancelledError):
        begin(kind, played, PickledWhile(lambda: played.maps[0].stop_submitting(CancelledError())), 50)
    assert (played.tasks, played.pool.holds) == ([], [])


@pytest.mark.parametrize("kind", [adaptive, bounded])
def test_a_map_that_is_left_while_it_begins_is_not_begun_again(kind):
    played = Played()
    made = begin(kind, played, PickledWhile(lambda: played.maps[0].cancel()), 50)
    assert (played.maps, played.tasks, played.pool.holds) == ([made], [], [])


@pytest.mark.parametrize("options", [{}, {"buffersize": 20}])
@pytest.mark.parametrize("name", ["map", "map_unordered"])
def test_a_function_that_shuts_its_pool_down_when_it_is_pickled_is_refused(name, options):
    with PidfdPoolExecutor(1) as pool:
        pool.submit(abs, 1).result()
        shut_down = PickledWhile(lambda: pool.shutdown(wait=False))
        with pytest.raises(RuntimeError, match="after shutdown"):
            taken_or_raised(getattr(pool, name), shut_down, options)


def taken_or_raised(form, function, options):
    came, error = taken(form(function, range(10), **options))
    assert came == []
    raise error
