"""Where the traceback of an exception begins that a worker sends: with frames that stand for the pool's own."""

from __future__ import annotations

import os

import pytest

from pidfdpool.serialization import payload
from pidfdpool.worker import tracebacks

LOOP = "pidfdpool.worker.process"
PICKLING = "pidfdpool.serialization.payload"


def calling(names, last):
    """Return a function that calls last() through one frame of a module of each of these names."""
    for name in reversed(names):
        found: dict = {"__name__": name, "last": last}
        exec(f"def of_{len(names)}():\n    return last()", found)
        last = found[f"of_{len(names)}"]
    return last


def modules_of(error):
    found, trace = [], error.__traceback__
    while trace is not None:
        found.append(trace.tb_frame.f_globals["__name__"])
        trace = trace.tb_next
    return found


def fail():
    raise LookupError("on purpose")


def caught(names, last=fail, error=LookupError):
    """Return what is raised there; the frame of this function is none of the pool's, and taken off."""
    return raised_by(calling(names, last), error)


def raised_by(call, error):
    """Return what call() raises, with its frames from that of call() on."""
    try:
        call()
    except error as raised:
        trace = BaseException.__dict__["__traceback__"]
        trace.__set__(raised, trace.__get__(raised).tb_next)
        return raised


@pytest.mark.parametrize(
    ("names", "left"),
    [
        ([LOOP, "pidfdpool.worker.chunk", "mine", PICKLING, "mine"], ["mine", PICKLING, "mine", __name__]),
        ([LOOP, PICKLING], [PICKLING, __name__]),
        ([LOOP, "pidfdpool.serialization.picklers", PICKLING], [PICKLING, __name__]),
        (
            [LOOP, PICKLING, "pidfdpool.worker.chunk_publishing"],
            [PICKLING, "pidfdpool.worker.chunk_publishing", __name__],
        ),
        ([LOOP, "pidfdpool.worker.boot", "mine"], ["pidfdpool.worker.boot", "mine", __name__]),
        ([LOOP, "pidfdpools", LOOP], ["pidfdpools", LOOP, __name__]),
        ([LOOP, 5, LOOP], [5, LOOP, __name__]),
    ],
)
def test_it_begins_with_the_tasks_own_frames_or_one_of_the_pools_pickling(names, left):
    error = caught(names)
    assert tracebacks.cut(error) is error
    assert modules_of(error) == left


@pytest.mark.parametrize(
    "name",
    [
        "pidfdpool.executor.serial_calls", "pidfdpool.integrations.process_pool.calls",
        "pidfdpool.swarm.node_process", "pidfdpool.template.main", "pidfdpool.worker.chunk",
        "pidfdpool.worker.chunk_publishing", "pidfdpool.worker.identity", LOOP, "pidfdpool.worker.tracebacks",
    ],
)  # fmt: skip
def test_every_part_of_the_way_to_a_task_is_cut(name):
    assert modules_of(tracebacks.cut(caught([name, "mine"]))) == ["mine", __name__]


def test_if_there_is_no_frame_of_the_tasks_the_innermost_is_kept():
    error = raised_by(lambda: exec("def run(): int('x')\nrun()", {"__name__": LOOP}), ValueError)
    assert modules_of(error) == [__name__, LOOP, LOOP]
    error.__traceback__ = error.__traceback__.tb_next
    tracebacks.cut(error)
    assert modules_of(error) == [LOOP]
    assert error.__traceback__.tb_frame.f_code.co_name == "run"


def test_an_error_without_a_traceback_stays_so():
    error = LookupError()
    assert tracebacks.cut(error) is error
    assert error.__traceback__ is None


class Frozen(Exception):
    """Lets nobody read or set its traceback."""

    @property
    def __traceback__(self):
        raise AssertionError("code of the user's")

    def __setattr__(self, name, value):
        raise AssertionError("frozen")


def test_a_class_that_is_frozen_is_not_asked():
    def raise_it():
        raise Frozen("on purpose")

    error = caught([LOOP, "mine"], raise_it, Frozen)
    assert tracebacks.cut(error) is error
    trace = BaseException.__dict__["__traceback__"].__get__(error)
    assert trace.tb_frame.f_globals["__name__"] == "mine"


def text_of(buffers):
    return str(payload.load_error(buffers).__cause__)


@pytest.mark.parametrize("result", [tracebacks.NO_RESULT, None, "a text"])
def test_only_of_a_result_that_could_not_be_pickled_a_note_tells_so(result):
    """Guards: a task that returned None was not told of, and its error looked as if the task had raised it."""
    error = payload.load_error(tracebacks.dump_error(caught(["mine"]), None, result))
    notes = getattr(error, "__notes__", [])
    assert notes == ([] if result is tracebacks.NO_RESULT else [f"the result cannot be pickled: {result!r}"])


def test_an_error_that_refuses_notes_is_sent_all_the_same():
    class Refusing(LookupError):
        def add_note(self, _note):
            raise RuntimeError("no notes")

    def raise_it():
        raise Refusing("on purpose")

    buffers = tracebacks.dump_error(caught(["mine"], raise_it), payload.ReceivedMain(), "result")
    assert "on purpose" in str(payload.load_error(buffers))


def test_the_text_of_an_error_has_its_frames_and_the_error_none_any_more():
    error = caught([LOOP, "mine"])
    text = text_of(tracebacks.dump_error(error, None))
    assert "in fail" in text
    assert error.__traceback__ is None


def test_a_worker_without_memory_tells_who_it_is_and_what_did_not_fit():
    error = payload.load_error(tracebacks.dump_no_memory(123456, None))
    assert type(error) is MemoryError
    assert str(error).startswith(f"this worker (pid {os.getpid()}) has not enough memory to receive the call")
    assert "123456 bytes" in str(error)
