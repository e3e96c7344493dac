"""The loop of a worker: read a task, run it, write what came of it.

One thread, blocking I/O, one channel to the host. A worker is never in the middle of two things, so its death can
cost one task at most. It ends when the host says LEAVE or closes the channel, or when the template dies.

Nothing that a task raises ends a worker: SystemExit and KeyboardInterrupt are the outcome of that task, too.

The one thing that other threads may do is to say that the worker is not well. They, or a signal handler that runs in
the middle of a write, must neither split a frame nor wait for it: see `_send`.
"""

from __future__ import annotations

import os
import time
from _thread import _count as count_threads
from collections import deque
from contextlib import suppress

from pidfdpool.pidfd import prctl
from pidfdpool.process import exiting, hygiene, native
from pidfdpool.process.spinning import Spin
from pidfdpool.serialization import payload, picklers, scripts
from pidfdpool.transport import black_box, frame_rules, framing, tokens
from pidfdpool.transport.black_box import ANNOUNCED, CLAIMED, LAST_BEGUN, TAKEN_BACK_FROM
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import chunk, context, handover, identity, rebuild_guard, script_module, tracebacks
from pidfdpool.worker.leased_segments import Borrowing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.process.native import Socket
    from pidfdpool.transport.framing import Buffer, Frame
    from pidfdpool.worker.boot import Boot
    from pidfdpool.worker.mark import Mark

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_MOST_KIB = 2**32 - 1  # what the frame has room for


class Worker:
    """One worker process. Made and run on its only thread, right after the fork."""

    def __init__(
        self,
        end: Socket,
        cookie: bytes,
        slot: int,
        boot: Boot,
        host_fd: int,
        sentinel: int | None,
        its_tokens: int,
        box: int,
        mark: Mark,
    ) -> None:
        self._channel = Channel(end, frame_rules.TO_WORKER, send_cookie=cookie)
        self._segments = Borrowing(self._channel)
        self._sending = native.lock()
        self._unsaid: deque[str] = deque()  # reasons why this worker is not well
        self._unwell = False  # there was one: no further task is begun
        self._outdated = False  # a task needs what this worker does not have of the script, and was not begun
        self._slot = slot
        self._boot = boot
        self._host_fd = host_fd
        self._pid = os.getpid()
        self._shared = payload.InheritedMain() if boot.forked else payload.ReceivedMain()
        self._line: deque[Frame] = deque()  # what was read and is to be done: tasks, and at last to leave
        self._tokens = its_tokens
        self._spin = Spin(boot.spin)
        self._box = box
        self._notes = black_box.map_words(box)  # what the host is to know of this process when it is dead
        self._passed = 0  # the first of the tasks that were taken back, once they are passed over
        self._mark = mark
        self._statm: int | None = None
        self._handing = handover.Handing()
        # Held open until this process ends: the box, and in the fallback the sign of life.
        self._held = [its_tokens, box] if sentinel is None else [its_tokens, box, sentinel]
        # A process that a task forks must not hold the channel: the host would not see that the worker closed it.
        os.register_at_fork(after_in_child=self._close_in_forked_child)

    def run(self) -> int:
        """Run tasks until there are to be no more; return the exit code."""
        prctl.set_name(f"pidfd-worker{self._slot}")
        # A tool that is in each process's bootstrap begins and ends there, and does not expect to have begun before.
        (exiting.forget if identity.bootstrap_is_replaced() else exiting.begin)()
        identity.become_process(f"PidfdPoolWorker-{self._slot}", (self._slot + 1,), self._boot, self._host_fd)
        return identity.run(self._work)

    def _work(self) -> int:
        script_module.set_signals()
        hygiene.start_faulthandler()
        with suppress(Exception):  # without it a stack is missing one day, and nothing else
            black_box.record_stacks(self._box)
        self._mark.put_on()
        context.install(self._beat, self._report)
        chunk.shared, chunk.box = self._shared, self._box
        if self._boot.watch_memory:
            with suppress(OSError):
                self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
                self._held.append(self._statm)
        try:
            if not self._initialize():
                return 1
            self._send(framing.encode(framing.READY))
            while self._work_off():
                self._read(self._spin.wait(self._look, self._channel.receive))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the host has no use for us any more
        self._handing.see_fetched(self._channel.fileno())
        exiting.run()
        return 0

    # ---- what the host is told -----------------------------------------------------------------------------

    def _send(self, pieces: list[Buffer]) -> None:
        with self._sending:
            self._channel.send(pieces)
        if self._unsaid:
            self._say_unsaid()

    def _report(self, reason: str) -> None:
        """Say that this worker is not well: now, or as soon as the frame that is being written is complete."""
        self._unwell = True
        self._unsaid.append(reason)
        with suppress(OSError):  # the host is gone; the loop will see that
            self._say_unsaid()

    def _say_unsaid(self) -> None:
        # Whoever finds the lock taken leaves it to its holder, who looks again after giving it back.
        while self._unsaid and self._sending.acquire(blocking=False):
            try:
                with suppress(IndexError):  # another thread was quicker
                    reason = self._unsaid.popleft().encode("utf-8", "backslashreplace")
                    self._channel.send(framing.encode(framing.UNHEALTHY, buffers=[reason]))
            finally:
                self._sending.release()

    def _beat(self) -> None:
        with suppress(OSError):  # the task has closed what is not its own
            black_box.record_heartbeat(self._box, time.monotonic())

    def _memory(self) -> int:
        """Return this process's resident memory in KiB; 0: not known."""
        assert self._statm is not None
        try:
            pages, shared = (int(field) * _PAGE_KIB for field in os.pread(self._statm, 128, 0).split()[1:3])
            return min(pages - min(shared, self._segments.mapped >> 10), _MOST_KIB)
        except (OSError, ValueError, IndexError):
            return 0

    # ---- tasks ---------------------------------------------------------------------------------------------

    def _initialize(self) -> bool:
        try:
            self._boot.run_initializer()
        except scripts.NeedsScript:
            self._send(framing.encode(framing.OUTDATED, value=1))
            return False
        except BaseException as error:
            tracebacks.cut(error)
            # Said by the same logger, in the same words, as in the standard library's workers.
            import logging

            from pidfdpool.process import journal

            logger = logging.getLogger("concurrent.futures")
            journal.write(logger, logging.CRITICAL, "Exception in initializer:", exc_info=True)
            self._send(framing.encode(framing.INITIALIZER_FAILED, buffers=payload.dump_error(error, self._shared)))
            return False
        return True

    def _look(self) -> list[Frame]:
        try:
            return self._channel.receive_nowait()
        except BlockingIOError:
            return []

    def _read(self, frames: list[Frame]) -> None:
        """Take what was read: tasks and the word to leave in their order, what is about segments at once."""
        for frame in frames:
            if frame.kind <= framing.EXIT:
                self._line.append(frame)
            else:
                self._segments.take(frame)

    def _work_off(self) -> bool:
        """Do what was read so far; return whether there is to be more."""
        line, notes = self._line, self._notes
        while line:
            frame = line[0]
            if frame.kind == framing.EXIT:
                return False
            if frame.slot & framing.NEEDS_SCRIPT and not scripts.ran_again:
                self._send(framing.encode(framing.OUTDATED))
                return False
            if self._unwell and line[-1].kind != framing.EXIT:
                self._read(self._channel.receive())  # the host has been told: it takes these back, and sends LEAVE
            elif not tokens.take(self._tokens):
                # Looked at before the host hears of it and sends others.
                stolen = notes[ANNOUNCED] and not notes[TAKEN_BACK_FROM]
                self._drop()
                if stolen:
                    raise RuntimeError("a task has taken tokens of this worker's, which only its loop may take")
            else:
                notes[CLAIMED] = number = frame.value
                # Looked at after that: the host takes back first, and looks then what is at hand.
                if notes[TAKEN_BACK_FROM] and self._is_taken_back(number):
                    self._drop()
                    continue
                notes[LAST_BEGUN] = number
                line.popleft()
                self._answer(frame)
                if self._outdated:
                    return False
        return True

    def _is_taken_back(self, number: int) -> bool:
        """Return whether a task for which there is a token was taken back: some task has put tokens down itself."""
        first = self._notes[TAKEN_BACK_FROM]
        # So were those behind it, also those that are still to be read.
        self._passed = first if number == first or self._passed == first else 0
        return bool(self._passed)

    def _answer(self, frame: Frame) -> None:
        """Run a task and write what came of it."""
        began = time.monotonic()
        kind, buffers = self._run_task(frame)
        if kind == framing.OUTDATED:
            self._send(framing.encode(kind, value=1))
            self._outdated = True
            return
        if kind == framing.CALL_NOT_RECEIVED:
            self._send(framing.encode(kind, value=frame.value))
            frame = self._sent_anew(frame.value)
            kind, buffers = self._run_task(frame)
        told = framing.encode_duration(time.monotonic() - began)
        if self._segments.active:
            told |= self._segments.answer()
        elif frame.slot & framing.USES_SEGMENTS:
            told |= framing.HAS_SEGMENT_FLAGS
        memory = 0 if self._statm is None else self._memory()
        self._send(framing.encode(kind, told, memory, frame.value, buffers))

    def _sent_anew(self, number: int) -> Frame:
        """Return the frame of a task when it has come for the second time, behind others that wait."""
        while True:
            for frame in self._line:
                if frame.kind == framing.TASK and frame.value == number:
                    self._line.remove(frame)
                    return frame
            self._read(self._channel.receive())

    def _drop(self) -> None:
        """Pass over tasks that the host has taken back: with no token left, that is all of them.

        A task's token is there before the task is, and after taking some back the host sends no task until it has
        heard that they were dropped.
        """
        count = 0
        while self._line and self._line[0].kind == framing.TASK:
            self._line.popleft()
            count += 1
        self._send(framing.encode(framing.DROPPED, value=count))

    def _run_task(self, frame: Frame) -> tuple[int, list[Buffer]]:
        """Run a task as its flags say, and return its outcome."""
        if type(frame.buffers) is framing.MissingBuffers:
            return self._refuse(frame.buffers.size)
        deadline = framing.DEADLINE.unpack(frame.buffers.pop())[0] if frame.slot & framing.HAS_DEADLINE else None
        spare = frame.slot & framing.SPARE_DESCENDANTS
        if frame.slot & framing.USES_SEGMENTS and not self._segments.open(frame):
            return framing.CALL_NOT_RECEIVED, []
        context.enter(frame.value, frame.generation, deadline)
        if spare:
            self._mark.take_off()
        try:
            return self._outcome(frame)
        finally:
            if spare:
                self._mark.put_on()
            context.leave()

    def _refuse(self, size: int) -> tuple[int, list[Buffer]]:
        """Answer a call for which there was no memory."""
        told = f"this worker (pid {self._pid}) has not enough memory to receive the call, which takes {size} bytes"
        return framing.ERROR, payload.dump_error(MemoryError(told), self._shared)

    def _outcome(self, frame: Frame) -> tuple[int, list[Buffer]]:
        """Run the call and return the kind and the buffers to answer with. Holds on to nothing of the task's."""
        note = rebuild_guard.note
        try:
            note.bystanders = rebuild_guard.other_threads() if count_threads() else ()
            note.doing = rebuild_guard.CALL
            function, arguments, keywords = payload.loads(frame.buffers)
            note.doing = None
            frame.buffers.clear()
            result = function(*arguments, **keywords)
            del function, arguments, keywords
            if os.getpid() != self._pid:
                self._leave()
            dump = self._segments.dump if self._segments.lends else payload.dumps
            kind, buffers = framing.RESULT, dump(result, self._shared)
        except scripts.NeedsScript:  # raised while the call is rebuilt, so nothing of it has run
            note.doing = None
            return framing.OUTDATED, []
        except BaseException as error:
            note.doing = None
            if os.getpid() != self._pid:
                self._leave()
            kind, buffers = framing.ERROR, tracebacks.told(error, self._shared)
        if picklers.shared_resources:
            self._handing.note()
        hygiene.flush_output()
        return kind, buffers

    def _leave(self) -> None:
        """End a process that a task forked and that came back out of the task: it is no worker."""
        hygiene.flush_output()
        os._exit(0)

    def _close_in_forked_child(self) -> None:
        context.forget()
        chunk.forget_in_forked_child()
        self._notes.release()
        rebuild_guard.forget_in_forked_child()
        self._segments.close_in_forked_child()
        self._channel.close()
        # Before its box is closed: a signal's stack would go into whatever has that number next.
        with suppress(Exception):
            black_box.stop_recording_stacks()
        for fd in self._held:
            with suppress(OSError):
                native.close(fd)
        self._held.clear()
