"""Order, memory bounds and second tries, with a pool that does what the test says and no process at all."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from pidfdpool import PoolBroken, TaskTimeout, WorkerCrashed
from pidfdpool.cli.attempts import Attempts
from pidfdpool.cli.flow import DocumentError, Flow
from pidfdpool.cli.source import ReadError
from pidfdpool.cli.target import Target
from pidfdpool.cli.transform import Block, Job
from tests.interrupting import places


class Death(WorkerCrashed):
    """A worker's death without a worker."""

    def __init__(self) -> None:
        BrokenProcessPool.__init__(self, "killed by SIGKILL")


class Lines:
    """A source of one block per item; it knows how many were taken."""

    def __init__(self, blocks, error=None):
        self._all = blocks
        self._error = error
        self.taken = 0

    def blocks(self, limit):
        line = 1
        for data in self._all:
            self.taken += 1
            yield Block("in", line, data, len(data))
            line += data.count(b"\n")
        if self._error is not None:
            raise self._error


class Sink:
    """Collects the output, and what it accounts for."""

    def __init__(self):
        self.output = b""
        self.size = self.documents = 0

    def write(self, outcome, size):
        self.output += outcome.output
        self.size += size
        self.documents += outcome.documents


class Inline(Executor):
    """Runs each task at once in the submitting thread; `dies` says which of them cost a worker."""

    def __init__(self, dies=lambda block: False):
        self.submitted = []
        self._dies = dies

    def submit(self, fn, job, block):
        self.submitted.append(block.data)
        future = Future()
        if self._dies(block):
            future.set_exception(Death())
        else:
            future.set_result(fn(job, block))
        return future


class Held(Executor):
    """Keeps tasks until it is told to run them."""

    def __init__(self):
        self.tasks = []
        self.arrived = threading.Semaphore(0)

    def submit(self, fn, job, block):
        future = Future()
        self.tasks.append((future, lambda: fn(job, block)))
        self.arrived.release()
        return future

    def finish(self, number):
        future, call = self.tasks[number]
        future.set_result(call())


def flow(pool, source, sink, function="same", *, on_error="fail", ordered=True, permits=8):
    job = Job(Target("tests.cli.jobs", function), False, on_error, False)
    return Flow(pool, job, source, sink, ordered=ordered, permits=permits)


def start(made):
    """Run it in a thread and return what will have become of it."""
    result = Future()

    def call():
        try:
            result.set_result(made.run())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call).start()
    return result


def test_nothing_in_nothing_out():
    sink = Sink()
    tally = flow(Inline(), Lines([]), sink).run()
    assert (tally.documents, sink.output) == (0, b"")


def test_every_byte_of_input_is_accounted_for():
    sink = Sink()
    flow(Inline(), Lines([b"1\n2\n", b"3\n"]), sink).run()
    assert (sink.output, sink.size, sink.documents) == (b"1\n2\n3\n", 6, 3)


def test_ctrl_c_ends_it_wherever_it_comes_while_output_is_written():
    """With a lock that a handler has left held, it would wait for ever at its end."""
    ended: list[str] = []

    def end_everywhere():
        ended.extend(
            places(
                lambda: flow(Inline(), Lines([b"1\n"]), Sink(), permits=1).run,
                begins=lambda code: code is Sink.write.__code__,
            )
        )

    thread = threading.Thread(target=end_everywhere, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), f"it hangs behind {ended[-1:]}"
    assert len(ended) > 10


@pytest.mark.parametrize(("ordered", "expected"), [(True, b"1\n2\n3\n"), (False, b"3\n1\n2\n")])
def test_order(ordered, expected):
    pool, sink = Held(), Sink()
    running = start(flow(pool, Lines([b"1\n", b"2\n", b"3\n"]), sink, ordered=ordered))
    for _ in range(3):
        pool.arrived.acquire()
    for number in (2, 0, 1):
        pool.finish(number)
    assert running.result().documents == 3
    assert sink.output == expected


def test_only_so_many_blocks_are_read_before_their_output_is_written():
    pool, sink, source = Held(), Sink(), Lines(b"%d\n" % number for number in range(1000))
    running = start(flow(pool, source, sink, permits=3))
    for done in range(1000 - 3):
        for _ in range(3 if done == 0 else 1):
            pool.arrived.acquire()
        assert source.taken == len(pool.tasks) == 3 + done
        pool.finish(done)
    pool.arrived.acquire()
    for done in range(997, 1000):
        pool.finish(done)
    assert running.result().documents == 1000


def test_a_finished_block_that_waits_for_its_turn_keeps_its_permit():
    pool, sink, source = Held(), Sink(), Lines([b"1\n", b"2\n", b"3\n"])
    running = start(flow(pool, source, sink, permits=2))
    pool.arrived.acquire()
    pool.arrived.acquire()
    pool.finish(1)
    assert source.taken == 2
    assert sink.output == b""
    pool.finish(0)
    pool.arrived.acquire()
    pool.finish(2)
    running.result()
    assert sink.output == b"1\n2\n3\n"


@pytest.mark.parametrize("ordered", [True, False])
def test_a_failing_document_ends_the_run_after_what_belongs_before_it(ordered):
    sink, source = Sink(), Lines([b"1\n2\n", b"4\n3\n5\n", *[b"6\n"] * 1000])
    with pytest.raises(DocumentError, match="in:4: ValueError: three is not allowed"):
        flow(Inline(), source, sink, "fail_on_three", ordered=ordered).run()
    assert sink.output == b"1\n2\n4\n"
    assert source.taken < 1000


def test_failures_are_counted_over_all_blocks():
    sink = Sink()
    tally = flow(Inline(), Lines([b"1\n3\n", b"3\n4\n"]), sink, "fail_on_three", on_error="skip").run()
    assert (tally.documents, tally.failed, tally.first.line) == (4, 2, 2)
    assert sink.output == b"1\n4\n"


def test_input_that_breaks_off_is_an_error_after_what_came_before():
    sink = Sink()
    with pytest.raises(ReadError, match="gone"):
        flow(Inline(), Lines([b"1\n"], ReadError("gone")), sink).run()
    assert sink.output == b"1\n"


def test_a_source_with_a_bug_does_not_hang_the_run():
    with pytest.raises(ZeroDivisionError):
        flow(Inline(), Lines([b"1\n"], ZeroDivisionError()), Sink()).run()


def test_a_broken_pool_ends_the_run():
    class Broken(Executor):
        def submit(self, fn, job, block):
            future = Future()
            future.set_exception(PoolBroken("too many deaths"))
            return future

    with pytest.raises(PoolBroken, match="too many deaths"):
        flow(Broken(), Lines([b"1\n"]), Sink()).run()


def test_a_pool_that_takes_no_more_tasks_ends_the_run():
    class Closed(Executor):
        def submit(self, fn, job, block):
            raise PoolBroken("too many deaths")

    with pytest.raises(PoolBroken):
        flow(Closed(), Lines([b"1\n"]), Sink()).run()


def test_output_that_cannot_be_written_ends_the_run():
    class Full(Sink):
        def write(self, outcome, size):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        flow(Inline(), Lines([b"1\n"] * 100), Full()).run()


# ---- workers that die --------------------------------------------------------------------------------------


def test_only_the_line_to_blame_fails():
    pool, sink = Inline(lambda block: b"3" in block.data), Sink()
    tally = flow(pool, Lines([b"1\n2\n", b"\n4\n3\n5\n", b"6\n"]), sink, on_error="skip").run()
    assert sink.output == b"1\n2\n4\n5\n6\n"
    assert (tally.documents, tally.failed) == (6, 1)
    assert str(tally.first) == "in:5: Death: killed by SIGKILL"
    assert pool.submitted == [b"1\n2\n", b"\n4\n3\n5\n", *pool.submitted[2:]]
    assert sorted(pool.submitted[2:]) == [b"3", b"4", b"5", b"6\n"]


def test_a_line_alone_in_its_block_gets_a_second_try_too():
    deaths = iter([True, False])
    sink = Sink()
    tally = flow(Inline(lambda block: next(deaths)), Lines([b"3\n"]), sink).run()
    assert (sink.output, tally.failed) == (b"3\n", 0)


def test_no_line_is_tried_more_than_twice():
    pool, sink = Inline(lambda block: True), Sink()
    flow(pool, Lines([b"1\n2\n"]), sink, on_error="skip").run()
    assert pool.submitted == [b"1\n2\n", b"1", b"2"]


def test_a_line_that_kills_its_worker_ends_the_run_like_any_other_failure():
    sink = Sink()
    with pytest.raises(DocumentError, match="in:3: Death"):
        flow(Inline(lambda block: b"3" in block.data), Lines([b"1\n", b"2\n3\n4\n"]), sink).run()
    assert sink.output == b"1\n2\n"


def test_a_recorded_death_stands_in_its_place():
    sink = Sink()
    flow(Inline(lambda block: b"3" in block.data), Lines([b"2\n3\n4\n"]), sink, on_error="record").run()
    first, record, last = sink.output.splitlines()
    assert (first, last) == (b"2", b"4")
    assert b'"type":"Death","message":"killed by SIGKILL","file":"in","line":2' in record


def test_a_second_try_keeps_its_place_in_the_order():
    pool, sink = Held(), Sink()
    running = start(flow(pool, Lines([b"1\n2\n", b"3\n"]), sink))
    pool.arrived.acquire()
    pool.arrived.acquire()
    pool.tasks[0][0].set_exception(Death())
    pool.arrived.acquire()
    pool.arrived.acquire()
    for number in (3, 1, 2):
        pool.finish(number)
    running.result()
    assert sink.output == b"1\n2\n3\n"


def test_bytes_of_a_block_that_was_tried_again_are_counted_once():
    sink = Sink()
    flow(Inline(lambda block: len(block.data) > 2), Lines([b"1\n2\n", b"3\n"]), sink).run()
    assert (sink.size, sink.documents) == (6, 3)


# ---- lines that are tried again -----------------------------------------------------------------------------


class Times(Inline):
    """As Inline; `ends` gives what a task with this data ends with, or nothing."""

    def __init__(self, ends):
        super().__init__()
        self._ends = ends

    def submit(self, fn, job, block):
        self.submitted.append(block.data)
        future = Future()
        try:
            if self._ends.get(block.data):
                raise self._ends[block.data].pop(0)
            future.set_result(fn(job, block))
        except Exception as raised:
            future.set_exception(raised)
        return future


def timeout():
    return TaskTimeout("too long", task="f", task_id=1, attempt=1)


def again_flow(pool, again, source, sink, function="same", *, retries=0, on_error="skip"):
    job = Job(Target("tests.cli.jobs", function), False, on_error, False, retries=retries > 0)
    return Flow(pool, job, source, sink, ordered=True, permits=8, attempts=Attempts(job, retries), again=again)


def test_a_block_that_takes_too_long_is_tried_again_line_by_line():
    first, again, sink = Times({b"1\n2\n": [timeout()]}), Times({b"2": [timeout()]}), Sink()
    tally = again_flow(first, again, Lines([b"1\n2\n", b"3\n"]), sink).run()
    assert (sink.output, tally.documents, tally.failed) == (b"1\n3\n", 3, 1)
    assert str(tally.first) == "in:2: TaskTimeout: too long"
    assert again.submitted == [b"1", b"2"]


@pytest.mark.parametrize(("retries", "lines"), [(0, []), (1, [b"1"])])
def test_a_document_alone_that_takes_too_long_is_tried_again_only_on_request(retries, lines):
    first, again, sink = Times({b"1\n": [timeout()]}), Times({}), Sink()
    tally = again_flow(first, again, Lines([b"1\n"]), sink, retries=retries).run()
    assert again.submitted == lines
    assert tally.failed == 1 - retries


def test_where_the_function_may_have_been_imported_meanwhile_it_is_tried_again():
    sink = Sink()
    job = Job(Target("tests.cli.jobs", "same"), False, "fail", False)
    attempts = Attempts(job, preloaded=False)
    made = Flow(Times({b"1\n": [timeout()]}), job, Lines([b"1\n"]), sink, ordered=True, permits=8, attempts=attempts)
    assert (made.run().failed, sink.output) == (0, b"1\n")


def test_where_a_function_fails_the_block_is_cut_in_three():
    first, again, sink = Times({}), Times({}), Sink()
    source = Lines([b"1\n2\n3\n4\n3\n5\n"])
    tally = again_flow(first, again, source, sink, "fail_on_three", retries=2).run()
    assert (sink.output, sink.size, tally.documents, tally.failed) == (b"1\n2\n4\n5\n", 12, 6, 2)
    assert str(tally.first) == "in:3: ValueError: three is not allowed"
    assert first.submitted == [b"1\n2\n3\n4\n3\n5\n", b"4\n3\n5\n", b"5\n"]
    assert again.submitted == [b"3", b"3"]


@pytest.mark.parametrize(("retries", "alone"), [(0, 0), (1, 0), (2, 1), (5, 4)])
def test_the_first_try_counts(retries, alone):
    assert Attempts(None, retries).retries_alone == alone
