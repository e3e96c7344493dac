"""What workers log reaches the host's loggers: all of it, in its order, by the host's rules, and at nobody's cost."""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import signal
import threading
import time

import pytest

from pidfdpool import PidfdPoolExecutor, WorkerCrashed
from pidfdpool.loop import log_emitter
from pidfdpool.pidfd import Pidfd
from tests import calls
from tests.conditions import eventually, in_forked_child, run_python

APP = "forwarded.app"


class Kept(logging.Handler):
    """Keeps the records, and what a formatter of the host's makes of them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(self.format(record))
        self.records.append(record)

    @property
    def texts(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def kept():
    """Have the loggers below "forwarded" write into a handler, and nowhere else."""
    handler, logger = Kept(), logging.getLogger("forwarded")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    logging.getLogger(APP).setLevel(logging.NOTSET)
    logging.getLogger(APP).propagate = True


def log(text, level=logging.INFO, name=APP, **extra):
    logging.getLogger(name).log(level, text, extra=extra)


def log_many(count, name=APP):
    for number in range(count):
        logging.getLogger(name).info("record %d", number)


def log_and_die(count):
    log_many(count)
    os.kill(os.getpid(), signal.SIGKILL)


def is_enabled(level, name=APP):
    return logging.getLogger(name).isEnabledFor(level)


def test_a_record_has_what_it_had_in_the_worker_and_where_it_comes_from(way, kept):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        future = pool.submit(log, "hello", tags=("a", 1), data=b"raw", odd=threading)
        future.result()
        pid = future.worker.pid
    [record] = kept.records
    assert (record.name, record.levelname, record.getMessage()) == (APP, "INFO", "hello")
    assert (record.processName, record.process, record.worker, record.task) == ("PidfdPoolWorker-0", pid, 0, 1)
    assert record.function == f"{__name__}.log"
    assert (record.tags, record.data) == (("a", 1), b"raw")
    assert record.odd == repr(threading)
    assert (record.funcName, record.filename, record.module) == ("log", os.path.basename(__file__), __name__[11:])
    assert kept.lines == [f"INFO:{APP}:hello"]


@pytest.mark.parametrize("kind", ["submit", "map", "chunks"])
def test_records_of_a_worker_come_in_order_with_their_tasks(way, kept, kind):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        if kind == "submit":
            for future in [pool.submit(log, str(n)) for n in range(200)]:
                future.result()
        else:
            list(pool.map(log, map(str, range(200)), chunksize=7 if kind == "chunks" else None))
    assert kept.texts == [str(n) for n in range(200)]
    tasks = [record.task for record in kept.records]
    assert tasks == sorted(tasks)
    assert {record.function for record in kept.records} == {f"{__name__}.log"}


def test_the_last_lines_before_a_crash_are_there(way, kept):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        assert isinstance(pool.submit(log_and_die, 50).exception(), WorkerCrashed)
    assert kept.texts == [f"record {n}" for n in range(50)]


@pytest.mark.many_times
def test_a_burst_of_ten_thousand_records_comes_whole(way, kept):
    with PidfdPoolExecutor(2, mp_context=way, forward_logs=True) as pool:
        for future in [pool.submit(log_many, 5000) for _ in range(2)]:
            future.result()
    by_task = {}
    for record in kept.records:
        by_task.setdefault(record.task, []).append(record.getMessage())
    assert list(map(len, by_task.values())) == [5000, 5000]
    assert all(texts == [f"record {n}" for n in range(5000)] for texts in by_task.values())


def test_the_level_of_the_host_decides_in_the_worker_and_later_changes_reach_the_next_task(way, kept):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        assert not pool.submit(is_enabled, logging.DEBUG).result()
        logging.getLogger(APP).setLevel(logging.DEBUG)
        assert pool.submit(is_enabled, logging.DEBUG).result()
        pool.submit(log, "now wanted", logging.DEBUG).result()
        logging.disable(logging.ERROR)
        try:
            assert not pool.submit(is_enabled, logging.ERROR).result()
        finally:
            logging.disable(logging.NOTSET)
        assert pool.submit(is_enabled, logging.ERROR).result()
        logging.getLogger(APP).setLevel(logging.NOTSET)
        assert not pool.submit(is_enabled, logging.DEBUG).result()
    assert kept.texts == ["now wanted"]


def raise_level_and_log():
    logging.getLogger(APP).setLevel(logging.DEBUG)
    log("the host does not want it", logging.DEBUG)


def test_a_level_that_only_the_worker_has_lowered_does_not_count_in_the_host(way, kept):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        pool.submit(raise_level_and_log).result()
        pool.submit(log, "wanted").result()
    assert kept.texts == ["wanted"]


def log_without_propagation():
    logging.getLogger(APP).propagate = False
    log("all the same")


def test_filters_and_propagation_are_those_of_the_host(way, kept):
    logger = logging.getLogger(APP)

    def refuse(record):
        return record.getMessage() != "refused"

    logger.addFilter(refuse)
    try:
        with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
            pool.submit(log, "refused").result()
            pool.submit(log_without_propagation).result()
    finally:
        logger.removeFilter(refuse)
    assert kept.texts == ["all the same"]
    logger.propagate = False
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        pool.submit(log, "stays below").result()
    assert kept.texts == ["all the same"]


def test_only_what_was_asked_for_is_forwarded(way, kept):
    for choice, wanted in (
        (logging.WARNING, ["W a", "W b"]),
        ("WARNING", ["W a", "W b"]),
        (["forwarded.a"], ["I a", "W a"]),
        (["forwarded"], ["I a", "W a", "I b", "W b"]),
        (["forwarde"], []),
        ([], []),
        (False, []),
    ):
        kept.records.clear()
        with PidfdPoolExecutor(1, mp_context="spawn", forward_logs=choice) as pool:
            for name in ("a", "b"):
                pool.submit(log, f"I {name}", logging.INFO, f"forwarded.{name}").result()
                pool.submit(log, f"W {name}", logging.WARNING, f"forwarded.{name}").result()
        assert kept.texts == wanted, choice


# ---- handlers of the host's ----------------------------------------------------------------------------------------


class Blocks(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.entered, self.leave = threading.Event(), threading.Event()

    def handle(self, record):
        self.entered.set()
        self.leave.wait(60)
        return True


def test_a_handler_that_blocks_does_not_hold_up_the_pool(way, kept, monkeypatch):
    monkeypatch.setattr(log_emitter, "GRACE", 0.2)
    handler = Blocks()
    logging.getLogger("forwarded").addHandler(handler)
    try:
        pool = PidfdPoolExecutor(2, mp_context=way, forward_logs=True)
        pool.submit(log, "blocks").result(timeout=30)
        assert handler.entered.wait(30)
        assert list(pool.map(calls.double, range(100))) == [2 * n for n in range(100)]
        for future in [pool.submit(log, str(n)) for n in range(20)]:
            future.result(timeout=30)
        pool.submit(calls.die).exception(timeout=30)
        assert pool.submit(calls.double, 4).result(timeout=30) == 8
        pool.shutdown()
    finally:
        handler.leave.set()
        logging.getLogger("forwarded").removeHandler(handler)
        eventually(lambda: not emitters(), "the thread ends when the handler returns")
    assert kept.texts[0] == "blocks"
    assert sorted(kept.texts[1:], key=int) == [*map(str, range(20))], "there are two workers"


def emitters():
    return [thread for thread in threading.enumerate() if thread.name.startswith("pidfdpool-logs")]


class Raises(logging.Handler):
    def handle(self, record):
        raise self.error


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), SystemExit(3), KeyboardInterrupt()], ids=["bug", "exit", "key"]
)
def test_a_handler_that_raises_costs_that_handler_its_record_and_nobody_else_anything(way, kept, error):
    handler = Raises()
    handler.error = error
    logging.getLogger(APP).addHandler(handler)
    try:
        with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
            for number in range(5):
                pool.submit(log, str(number)).result(timeout=30)
            pool.submit(log, "another", logging.INFO, "forwarded.other").result(timeout=30)
            assert pool.stats().broken is None
    finally:
        logging.getLogger(APP).removeHandler(handler)
    assert kept.texts == ["another"]


def test_what_does_not_fit_is_counted_and_the_count_is_logged(kept, caplog, monkeypatch):
    monkeypatch.setattr(log_emitter, "MOST_BYTES", 100_000)
    handler = Blocks()
    logging.getLogger("forwarded").addHandler(handler)
    try:
        with PidfdPoolExecutor(1, mp_context="spawn", forward_logs=True) as pool:
            pool.submit(log, "first").result()
            assert handler.entered.wait(30)
            pool.submit(log_many, 1000).result()
            handler.leave.set()
    finally:
        logging.getLogger("forwarded").removeHandler(handler)
    [told] = [record for record in caplog.records if record.name == "pidfdpool.logs"]
    assert told.levelno == logging.WARNING
    assert 0 < len(kept.records) - 1 < 1000
    assert told.args == (1001 - len(kept.records),)
    assert kept.texts[1:] == [f"record {n}" for n in range(len(kept.records) - 1)]


def test_a_handler_may_use_the_pool_and_shut_it_down(way, kept):
    class Uses(logging.Handler):
        def handle(self, record):
            self.got = pool.submit(calls.double, 21).result(timeout=30)
            pool.shutdown()
            return True

    handler = Uses()
    logging.getLogger("forwarded").addHandler(handler)
    try:
        pool = PidfdPoolExecutor(1, mp_context=way, forward_logs=True)
        pool.submit(log, "once").result(timeout=30)
        eventually(lambda: hasattr(handler, "got"), "the handler has used the pool")
        pool.shutdown()
    finally:
        logging.getLogger("forwarded").removeHandler(handler)
    assert handler.got == 42
    assert kept.texts == ["once"]


def test_real_handlers_write_what_workers_log(way, kept, tmp_path):
    rotating = logging.handlers.RotatingFileHandler(tmp_path / "log", maxBytes=2000, backupCount=50)
    rotating.setFormatter(logging.Formatter("%(processName)s %(message)s"))
    records = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, rotating)
    by_queue = logging.handlers.QueueHandler(records)
    logging.getLogger("forwarded").addHandler(by_queue)
    listener.start()
    try:
        with PidfdPoolExecutor(2, mp_context=way, forward_logs=True) as pool:
            list(pool.map(log, map(str, range(300)), chunksize=1))
    finally:
        logging.getLogger("forwarded").removeHandler(by_queue)
        listener.stop()
        rotating.close()
    lines = [line for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert sorted(int(line.split()[1]) for line in lines) == list(range(300))
    assert {line.split()[0] for line in lines} <= {"PidfdPoolWorker-0", "PidfdPoolWorker-1"}


# ---- threads, forks, exits -----------------------------------------------------------------------------------------


def test_there_is_no_further_thread_but_while_there_are_records(way, kept):
    with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
        pool.submit(calls.double, 1).result()
        assert not emitters()
        pool.submit(log, "one").result()
        eventually(lambda: kept.records, "the record comes without a shutdown")
        eventually(lambda: not emitters(), "its thread ends")
        pool.submit(log, "two").result()
        eventually(lambda: len(kept.records) == 2, "so does the next")
    assert not emitters()


def test_a_forked_host_forwards_to_its_own_loggers_and_leaves_the_parents_records(way, kept):
    handler = Blocks()
    logging.getLogger("forwarded").addHandler(handler)
    try:
        with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
            pool.submit(log, "the parent's").result()
            assert handler.entered.wait(30)
            pool.submit(log, "it waits").result()

            def in_child():
                logging.getLogger("forwarded").removeHandler(handler)
                kept.records.clear()
                pool.submit(log, "the child's").result(timeout=30)
                pool.shutdown()
                assert kept.texts == ["the child's"]

            assert in_forked_child(in_child) == "ok"
            handler.leave.set()
    finally:
        logging.getLogger("forwarded").removeHandler(handler)
    assert kept.texts == ["the parent's", "it waits"]


class Forks(logging.Handler):
    """Forks the host at its first record, when the others have come, and goes on in both processes."""

    child = 0

    def __init__(self, writer):
        super().__init__()
        self.writer, self.go = writer, threading.Event()

    def handle(self, record):
        if not self.child:
            self.go.wait(30)
            self.child = os.fork() or -1
        os.write(self.writer, f"{os.getpid()} {record.getMessage()}\n".encode())
        return True


def test_a_handler_that_forks_leaves_the_other_records_to_the_parent(way):
    reader, writer = os.pipe()
    handler = Forks(writer)
    logging.getLogger("forwarded").addHandler(handler)
    logging.getLogger("forwarded").setLevel(logging.INFO)
    try:
        with PidfdPoolExecutor(1, mp_context=way, forward_logs=True) as pool:
            pool.submit(log_many, 20).result()
            handler.go.set()
        with Pidfd.open(handler.child) as child:
            if not child.wait(20):
                child.send_signal(signal.SIGKILL)
            os.waitpid(handler.child, 0)
    finally:
        logging.getLogger("forwarded").removeHandler(handler)
        logging.getLogger("forwarded").setLevel(logging.NOTSET)
        os.close(writer)
    with open(reader) as file:
        lines = file.read().splitlines()
    assert [line for line in lines if line.startswith(f"{os.getpid()} ")] == [
        f"{os.getpid()} record {number}" for number in range(20)
    ]
    assert [line for line in lines if line.startswith(f"{handler.child} ")] == [f"{handler.child} record 0"]


@pytest.mark.parametrize("end", ["", "pool.shutdown(wait=False)", "del pool"])
def test_what_has_come_is_handed_over_before_the_interpreter_exits(way, end):
    done = run_python(
        f"""
        import logging, sys, time
        from pidfdpool import PidfdPoolExecutor
        from tests.loop.test_forwarded_logs import log
        class Slow(logging.StreamHandler):
            def emit(self, record):
                time.sleep(0.02)
                super().emit(record)
        logging.basicConfig(level="INFO", handlers=[Slow(sys.stdout)], format="%(message)s")
        pool = PidfdPoolExecutor(1, mp_context={way!r}, forward_logs=True)
        futures = [pool.submit(log, str(n)) for n in range(30)]
        {end}
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(n) for n in range(30)]


def log_long(count):
    for number in range(count):
        log(f"record {number} ".ljust(40_000, "."))  # a pipe takes 4 KB in one piece; this goes through the channel


def log_from_thread_and_signal():
    def handle(_number, _frame):
        log("from a handler".ljust(6000, "."))

    signal.signal(signal.SIGUSR1, handle)
    threads = [threading.Thread(target=log_long, args=(50,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        os.kill(os.getpid(), signal.SIGUSR1)
        log("from the main thread".ljust(6000, "."))
    for thread in threads:
        thread.join()


def test_threads_and_signal_handlers_of_a_task_split_no_frame(kept):
    with PidfdPoolExecutor(1, mp_context="spawn", forward_logs=True) as pool:
        pool.submit(log_from_thread_and_signal).result(timeout=30)
        assert pool.submit(calls.double, 3).result(timeout=30) == 6
        assert pool.stats().crashes == 0
    starts = [text.rstrip(".") for text in kept.texts]
    assert len([text for text in starts if text.startswith("record")]) == 150
    assert starts.count("from a handler") > 0


def fork_and_log():
    pid = os.fork()
    if not pid:
        log("from a child of the task")
        os._exit(0)
    os.waitpid(pid, 0)
    log("from the task")


def test_a_process_that_a_task_forks_writes_nothing_into_its_workers_pipe(kept):
    with PidfdPoolExecutor(1, mp_context="spawn", forward_logs=True) as pool:
        pool.submit(fork_and_log).result(timeout=30)
        assert pool.stats().crashes == 0
    assert kept.texts == ["from the task"]
