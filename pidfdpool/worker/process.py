"""The main program and the loop of a worker: it reads a task, runs it, and writes the answer.

Called by `template.worker_fork` in the new process, right after the fork. It has one thread and blocking I/O. Tasks
come through its channel, and it answers through a pipe (`answers`). A worker runs one task at a time, so its death
can fail one task at most. It exits when the host sends EXIT or closes the channel, or when the template dies.
No exception of a task ends it: SystemExit and KeyboardInterrupt are outcomes of that task like others.

Other threads may report here that the worker is unhealthy, log, and send items (`AnswerWriter.post`, `send_items`).
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
from pidfdpool.serialization import named_calls, payload, picklers, scripts
from pidfdpool.transport import black_box, frame_rules, framing, tokens
from pidfdpool.transport.black_box import ANNOUNCED, CLAIMED, LAST_BEGUN, TAKEN_BACK_FROM
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import chunk, context, handover, identity, rebuild_guard, script_module, tracebacks
from pidfdpool.worker.answers import AnswerWriter, take_pipe
from pidfdpool.worker.leased_segments import LeasedSegments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.process.native import Socket
    from pidfdpool.transport.framing import Buffer, Frame, Lean
    from pidfdpool.worker.boot import Boot
    from pidfdpool.worker.log_forwarding import Forwarding
    from pidfdpool.worker.mark import Mark

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024
_UNUSUAL = framing.HAS_DEADLINE | framing.SPARE_DESCENDANTS | framing.USES_SEGMENTS
_MAX_KIB = 2**32 - 1  # what the frame has room for
_LEAN = frozenset((tuple,))


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
        tokens_fd: int,
        black_box_fd: int,
        mark: Mark,
    ) -> None:
        """Take over the descriptors.

        end, cookie: the worker's end of its channel, and what it writes before each frame.
        host_fd: readable once the host is gone. sentinel: in the fallback, what this process holds open for its life.
        """
        pipe = take_pipe(end)
        self._channel = Channel(end, frame_rules.TO_WORKER, waits=True, send_cookie=cookie)
        self._answers = AnswerWriter(pipe, self._channel, cookie)
        self._send_answer = self._answers.send_answer
        self._segments = LeasedSegments(self._channel)
        self._send_lock, self._unsent = self._answers.lock, self._answers.unsent
        self._is_unhealthy = False  # there was a reason: no further task is begun
        self._outdated = False  # a task was not begun, because it needs the script and this worker has not run it
        self._slot = slot
        self._boot = boot
        self._host_fd = host_fd
        self._pid = os.getpid()
        self._shared = payload.InheritedMain() if boot.forked else payload.ReceivedMain()
        self._queue: deque[Frame | Lean] = deque()  # read, and not yet handled: TASK, at the end EXIT
        self.stream_orders: deque[Frame] = deque()  # STREAM; this and what follows are for `streaming`
        self.send_items = self._send
        self._tokens = tokens_fd
        self._spin = Spin(boot.spin)
        self._black_box = black_box_fd
        self._record = black_box.map_words(black_box_fd)  # what the host has to know of this process when it is dead
        self._skip_from = 0  # the first of the tasks that were taken back, while they are skipped
        self._mark = mark
        self._statm: int | None = None
        self._handover = handover.Handover()
        self._logs: Forwarding | None = None
        self._held_fds = [fd for fd in (tokens_fd, black_box_fd, sentinel) if fd is not None]  # until it exits
        # A process that a task forks must hold neither channel nor pipe: the host would not see that they are closed.
        os.register_at_fork(after_in_child=self._close_in_forked_child)

    def run(self) -> int:
        """Run tasks until the host sends EXIT; return the exit code."""
        prctl.set_name(f"pidfd-worker{self._slot}")
        # A tool that has replaced multiprocessing's bootstrap starts there, and must not have started before.
        (exiting.discard_inherited if identity.bootstrap_is_replaced() else exiting.leave_inherited)()
        identity.become_process(f"PidfdPoolWorker-{self._slot}", (self._slot + 1,), self._boot, self._host_fd)
        return identity.run(self._work)

    def _work(self) -> int:
        script_module.set_signals()
        hygiene.start_faulthandler()
        with suppress(Exception):  # only stacks in death reports depend on it
            black_box.record_stacks(self._black_box)
        self._mark.set()
        context.install(self._beat, self._report, self)
        if self._boot.logs is not None:
            from pidfdpool.worker import log_forwarding

            self._logs = log_forwarding.install(self._boot.logs, self._answers.post)
        chunk.shared_main, chunk.black_box_fd = self._shared, self._black_box
        if self._boot.watch_memory:
            with suppress(OSError):
                self._statm = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
                self._held_fds.append(self._statm)
        try:
            if not self._initialize():
                return 1
            self._send(framing.encode(framing.READY))
            while self._run_queued():
                self._enqueue(self._spin.wait(self._poll, self._channel.receive_lean))
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass  # the host is gone, or has given up this worker
        self._handover.wait_until_fetched(self._channel.fileno())
        exiting.run()
        return 0

    # ---- sending -------------------------------------------------------------------------------------------

    def _send(self, pieces: list[Buffer]) -> None:
        with self._send_lock:
            self._answers.send(pieces)
        if self._unsent:
            self._answers.send_posted()

    def _report(self, reason: str) -> None:
        """Report that this worker is unhealthy. From any thread, or from a signal handler."""
        self._is_unhealthy = True
        self._answers.post(framing.encode(framing.UNHEALTHY, buffers=[reason.encode("utf-8", "backslashreplace")]))

    def _beat(self) -> None:
        with suppress(OSError):  # the task has closed a descriptor that is not its own
            black_box.record_heartbeat(self._black_box, time.monotonic())

    def _memory(self) -> int:
        """Return this process's resident memory in KiB; 0: not known."""
        assert self._statm is not None
        try:
            pages, shared = (int(field) * _PAGE_KIB for field in os.pread(self._statm, 128, 0).split()[1:3])
            return min(pages - min(shared, self._segments.mapped_bytes >> 10), _MAX_KIB)
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
            # By the same logger, and with the same message, as in the standard library's workers.
            import logging

            from pidfdpool.process import safe_logging

            logger = logging.getLogger("concurrent.futures")
            safe_logging.log(logger, logging.CRITICAL, "Exception in initializer:", exc_info=True)
            self._send(framing.encode(framing.INITIALIZER_FAILED, buffers=payload.dump_error(error, self._shared)))
            return False
        return True

    def _poll(self) -> list[Frame | Lean]:
        try:
            return self._channel.receive_lean_nowait()
        except BlockingIOError:
            return []

    def _enqueue(self, frames: list[Frame | Lean]) -> None:
        """Put TASK and EXIT into the queue, and handle other frames at once."""
        if _LEAN.issuperset(map(type, frames)):
            self._queue.extend(frames)
            return
        for frame in frames:
            if type(frame) is tuple or frame.kind <= framing.EXIT:  # type: ignore[union-attr]
                self._queue.append(frame)
            elif frame.kind == framing.LOG_LEVELS:  # type: ignore[union-attr]
                if self._logs is not None:
                    self._logs.set_levels(frame.buffers[0])  # type: ignore[union-attr]
            elif frame.kind == framing.STREAM:  # type: ignore[union-attr]
                self.stream_orders.append(frame)  # type: ignore[arg-type]
            elif frame.kind == framing.RECORD_TIMES:  # type: ignore[union-attr]
                from pidfdpool.worker import recording  # most pools are not observed

                recording.switch(self, self._black_box, on=bool(frame.slot))  # type: ignore[union-attr]
            else:
                self._segments.handle_frame(frame)  # type: ignore[arg-type]

    def read_orders(self, *, wait: bool) -> None:
        """Read what has come. wait: until something has."""
        self._enqueue(self._channel.receive_lean() if wait else self._poll())

    def _run_queued(self) -> bool:
        """Handle what is in the queue; return False if the worker has to exit."""
        queue, record, take, token = self._queue, self._record, tokens.take, self._tokens
        while queue:
            frame = queue[0]
            if type(frame) is tuple:
                number, flags, attempt, data = frame
            elif frame.kind == framing.EXIT:  # type: ignore[union-attr]
                return False
            else:
                number, flags = frame.value, frame.slot  # type: ignore[union-attr]
            if flags and flags & framing.NEEDS_SCRIPT and not scripts.ran_again:
                self._send(framing.encode(framing.OUTDATED))
                return False
            if record[TAKEN_BACK_FROM]:
                tokens.never_wait(token)  # there may be none, and a task may have made the descriptor blocking
            if self._is_unhealthy and not _is_exit(queue[-1]):
                self._enqueue(self._channel.receive_lean())  # the host knows: it takes them back, and sends EXIT
            elif not take(token):
                # Read before the host gets DROPPED and sends other tasks.
                stolen = record[ANNOUNCED] and not record[TAKEN_BACK_FROM]
                self._drop_taken_back()
                if stolen:
                    raise RuntimeError("a task has taken tokens of this worker's, which only its loop may take")
            else:
                record[CLAIMED] = number
                # TAKEN_BACK_FROM is read after CLAIMED is written. The host takes back first, then reads CLAIMED.
                if record[TAKEN_BACK_FROM] and self._is_taken_back(number):
                    self._drop_taken_back()
                    continue
                record[LAST_BEGUN] = number
                queue.popleft()
                if type(frame) is tuple and not flags & _UNUSUAL:
                    call: list[Buffer] = [data]
                    del frame, data
                    self._answer_usual(number, attempt, call)
                else:
                    self._answer(framing.made(frame, framing.TASK))
                if self._outdated:
                    return False
        return True

    def _is_taken_back(self, number: int) -> bool:
        """Return whether a task was taken back although there is a token. Then some task has added tokens itself."""
        first = self._record[TAKEN_BACK_FROM]
        # The tasks behind the first one were taken back, too, even those that are still to be read.
        self._skip_from = first if number == first or self._skip_from == first else 0
        return bool(self._skip_from)

    def _answer_usual(self, number: int, attempt: int, buffers: list[Buffer]) -> None:
        """Run a task without flags and write the answer. As `_answer` does, in fewer steps."""
        began = time.monotonic()
        context.enter(number, attempt, None)
        try:
            kind, buffers = self._run_call(buffers)
        finally:
            context.leave()
        self._write(kind, began, time.monotonic(), 0, number, buffers)

    def _answer(self, frame: Frame) -> None:
        """Run a task and write the answer."""
        began = time.monotonic()
        kind, buffers = self._run_task(frame)
        if kind == framing.CALL_NOT_RECEIVED:
            self._send(framing.encode(kind, value=frame.value))
            frame = self._receive_again(frame.value)
            kind, buffers = self._run_task(frame)
        flags = 0
        if self._segments.active:
            flags = self._segments.end_task()
        elif frame.slot & framing.USES_SEGMENTS:
            flags = framing.HAS_SEGMENT_FLAGS
        self._write(kind, began, time.monotonic(), flags, frame.value, buffers)

    def _write(self, kind: int, began: float, ended: float, flags: int, number: int, buffers: list[Buffer]) -> None:
        """Write the answer to a task that began and ended at these times."""
        if kind == framing.OUTDATED:
            self._send(framing.encode(kind, value=1))
            self._outdated = True
            return
        slot = framing.encode_duration(ended - began) | flags
        memory = 0 if self._statm is None else self._memory()
        if len(buffers) != 1:
            self._send(framing.encode(kind, slot, memory, number, buffers))
            return
        with self._send_lock:  # as `_send`
            self._send_answer(kind, slot, memory, number, buffers[0])
        if self._unsent:
            self._answers.send_posted()

    def _receive_again(self, number: int) -> Frame:
        """Return the frame of a task when it has arrived for the second time, perhaps behind other frames."""
        while True:
            for frame in self._queue:
                made = framing.made(frame, framing.TASK)
                if made.kind == framing.TASK and made.value == number:
                    self._queue.remove(frame)
                    return made
            self._enqueue(self._channel.receive_lean())

    def _drop_taken_back(self) -> None:
        """Drop the tasks that the host has taken back. As no token is left, these are all that were read.

        The host adds a task's token before it sends the task. After it has taken tasks back, it sends no task until
        it has received DROPPED.
        """
        count = 0
        while self._queue and not _is_exit(self._queue[0]):
            self._queue.popleft()
            count += 1
        self._send(framing.encode(framing.DROPPED, value=count))

    def _run_task(self, frame: Frame) -> tuple[int, list[Buffer]]:
        """Run a task as its flags say, and return the kind and the buffers of the answer."""
        if type(frame.buffers) is framing.MissingBuffers:
            return framing.ERROR, tracebacks.dump_no_memory(frame.buffers.size, self._shared)
        deadline = framing.DEADLINE.unpack(frame.buffers.pop())[0] if frame.slot & framing.HAS_DEADLINE else None
        spare = frame.slot & framing.SPARE_DESCENDANTS
        if frame.slot & framing.USES_SEGMENTS and not self._segments.begin_task(frame):
            return framing.CALL_NOT_RECEIVED, []
        context.enter(frame.value, frame.generation, deadline)
        if spare:
            self._mark.remove()
        try:
            return self._run_call(frame.buffers)
        finally:
            if spare:
                self._mark.set()
            context.leave()

    def _run_call(self, call: list[Buffer]) -> tuple[int, list[Buffer]]:
        """Run the call and return the kind and the buffers of the answer. Keeps no object of the task's.

        call: its payload, which is cleared.
        """
        state = rebuild_guard.state
        result: object = tracebacks.NO_RESULT
        try:
            state.unrelated_threads = rebuild_guard.other_threads() if count_threads() else ()
            state.activity = rebuild_guard.CALL
            data = call[0]
            if data[-1] == named_calls.MARK:
                function, arguments, keywords = named_calls.loads(data)
            else:
                function, arguments, keywords = payload.loads(call)
            del data
            state.activity = None
            call.clear()
            result = function(*arguments, **keywords)
            del function, arguments, keywords
            if os.getpid() != self._pid:
                self._exit_forked_child()
            dump = self._segments.dump_result if self._segments.expects_large else payload.dumps
            kind = framing.RESULT
            buffers: list[Buffer] = [payload.NONE] if result is None else dump(result, self._shared)
        except scripts.NeedsScript:  # raised while the call is unpickled, so nothing of it has run
            state.activity = None
            return framing.OUTDATED, []
        except BaseException as error:
            state.activity = None
            if os.getpid() != self._pid:
                self._exit_forked_child()
            kind, buffers = framing.ERROR, tracebacks.dump_error(error, self._shared, result)
        if picklers.shared_resources:
            self._handover.add_shared()
        hygiene.flush_output()
        return kind, buffers

    def _exit_forked_child(self) -> None:
        """Exit a process that a task has forked and that has returned from the task. It is no worker."""
        hygiene.flush_output()
        os._exit(0)

    def _close_in_forked_child(self) -> None:
        if self._logs is not None:
            self._logs.stop()
        context.forget()
        chunk.forget_in_forked_child()
        self._record.release()
        rebuild_guard.forget_in_forked_child()
        self._segments.close_in_forked_child()
        self._channel.close()
        self._answers.close()
        # Before the black box is closed, or a signal would write a stack into the file that gets its number next.
        with suppress(Exception):
            black_box.stop_recording_stacks()
        for fd in self._held_fds:
            with suppress(OSError):
                native.close(fd)
        self._held_fds.clear()


def _is_exit(frame: Frame | Lean) -> bool:
    return type(frame) is framing.Frame and frame.kind == framing.EXIT
