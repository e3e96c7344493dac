"""The main program of a node: it makes the `Node`, calls the target, and ends as the target does.

Called by `template.worker_fork` in the new process, right after the fork, in the place of a worker. The target runs
on this thread, which is the main thread. The node reads its channel only once, at its start. Whatever it is asked to
do later comes by counters and signals, so there is no thread of ours in a node.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from pidfdpool.pidfd import prctl
from pidfdpool.process import exiting, hygiene, native
from pidfdpool.process.native import signal
from pidfdpool.serialization import scripts
from pidfdpool.swarm.node import MESSAGE_SIGNAL, Flag, Node
from pidfdpool.transport import black_box, frame_rules, framing
from pidfdpool.transport import channel as channels
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import context, identity, script_module, tracebacks
from pidfdpool.worker.answers import AnswerWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from pidfdpool.process.native import Socket
    from pidfdpool.transport.framing import Buffer
    from pidfdpool.worker.boot import Boot
    from pidfdpool.worker.log_forwarding import Forwarding
    from pidfdpool.worker.mark import Mark

TERMINATED = 128 + int(signal.SIGTERM)  # the exit code after a SIGTERM, as shells show it
_MAX_TEXT = 1 << 12  # bytes of what a node tells about itself


class _Writer(AnswerWriter):
    """Writes the frames of a node, from any thread: all into its channel, because a node has no pipe."""

    def send(self, pieces: list[Buffer]) -> None:
        """Send one frame, and wait as long as that takes. Raises OSError: the host is gone."""
        self._channel.send(pieces)


class NodeProcess:
    """One node's process. Made and run on its only thread, right after the fork.

    Attributes:
        HELD_SIGNALS: are blocked from the fork on, because they would end a node that cannot receive them yet.
    """

    HELD_SIGNALS = (MESSAGE_SIGNAL, black_box.STACK_SIGNAL)

    def __init__(
        self,
        end: Socket,
        cookie: bytes,
        slot: int,
        boot: Boot,
        host_fd: int,
        sentinel: int | None,
        stopping_fd: int,
        black_box_fd: int,
        mark: Mark,
    ) -> None:
        """Take over the descriptors, as a worker does.

        stopping_fd: what a worker's tokens are: a counter, which is above 0 once the node is to stop.
        """
        quiet_fd = channels.take_over(end)
        self._channel = Channel(end, frame_rules.TO_NODE, waits=True, send_cookie=cookie)
        self._writer = _Writer(-1, self._channel, cookie)
        self._logs: Forwarding | None = None
        self._boot = boot
        self._host_fd = host_fd
        self._black_box = black_box_fd
        self._mark = mark
        self._number = slot
        self._stopping = Flag(stopping_fd)
        self._quiet_fd = quiet_fd
        self._is_unhealthy = False
        self._was_terminated = False  # by a SIGTERM before the swarm has asked it to stop
        self._is_ending = False  # by SystemExit, because of a SIGTERM
        self._held_fds = [fd for fd in (black_box_fd, sentinel) if fd is not None]  # open until this process exits

    def run(self) -> int:
        """Run the target; return the exit code."""
        prctl.set_name(f"pidfd-node{self._number}")
        (exiting.discard_inherited if identity.bootstrap_is_replaced() else exiting.leave_inherited)()
        name = f"PidfdSwarmNode-{self._number}"
        identity.become_process(name, (self._number + 1,), self._boot, self._host_fd)
        return identity.run(self._work)

    def _work(self) -> int:
        script_module.set_signals()
        native.set_signal(signal.SIGTERM, self._on_sigterm)
        hygiene.start_faulthandler()
        with suppress(Exception):  # only stacks depend on it
            black_box.record_stacks(self._black_box, at_sigterm=False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (black_box.STACK_SIGNAL,))
        self._mark.set()
        if self._boot.logs is not None:
            from pidfdpool.worker import log_forwarding

            self._logs = log_forwarding.install(self._boot.logs, self._writer.post)
        if self._quiet_fd is None:
            return self._fail("no descriptor number left for node.quiet", loading=True)
        try:
            attempt = self._receive_attempt()
        except (EOFError, ConnectionResetError):
            return 1  # the host is gone, or has given up this node
        report = black_box.map_heartbeat(self._black_box)
        node = Node(self._number, attempt, self._stopping, Flag(self._quiet_fd), self._host_fd, report, self._tell)
        os.register_at_fork(after_in_child=lambda: self._close_in_forked_child(node))
        try:
            target, arguments = self._load_target()
        except BaseException as error:
            if self._is_ending:
                return TERMINATED
            return self._fail(_text_of(tracebacks.cut(error)), loading=True)
        self._send(framing.encode(framing.READY))
        status = self._call(target, node, arguments)
        exiting.run()
        return status

    def _receive_attempt(self) -> int:
        frames = self._channel.receive()
        while not frames:
            frames = self._channel.receive()
        return frames[0].value

    # ---- the target ----------------------------------------------------------------------------------------

    def _load_target(self) -> tuple[Callable[..., object], tuple[Any, ...]]:
        context.worker = context.WorkerPlace(os.getpid(), self._boot.pool_size)
        try:
            return self._boot.load_initializer()
        except scripts.NeedsScript:
            script_module.run_script()
            return self._boot.load_initializer()

    def _call(self, target: Callable[..., object], node: Node, arguments: tuple[Any, ...]) -> int:
        """Call the target, and return the exit code."""
        try:
            result: Any = target(node, *arguments)
            if hasattr(type(result), "cr_frame"):  # a coroutine: the target is an async function
                import asyncio

                asyncio.run(result)
        except SystemExit as error:
            return self._exit_code(error.code)
        except BaseException as error:
            tracebacks.cut(error)
            sys.excepthook(type(error), error, error.__traceback__)
            return self._fail(_text_of(error), loading=False)
        # Who was told to end by somebody else than the swarm has not done its work.
        return TERMINATED if self._was_terminated else 0

    def _exit_code(self, code: object) -> int:
        """Return the exit code of a SystemExit, as the interpreter does."""
        if code is None:
            return TERMINATED if self._was_terminated else 0
        if isinstance(code, int):
            return code & 0xFF
        sys.stderr.write(f"{code}\n")
        return self._fail(f"SystemExit: {code}", loading=False)

    def _fail(self, text: str, *, loading: bool) -> int:
        self._send(framing.encode(framing.ENDING, value=int(loading), buffers=[_encoded(text)]))
        return 1

    def _on_sigterm(self, _number: int, _frame: FrameType | None) -> None:
        """Ask the target to stop; if that was done before, raise SystemExit."""
        try:
            if not self._stopping.is_set():
                self._was_terminated = True
                self._stopping.set()
                return
        except OSError:  # something has closed the counter, so that nothing else would end the target
            pass
        self._is_ending = True
        raise SystemExit(TERMINATED)

    # ---- what the node tells -------------------------------------------------------------------------------

    def _tell(self, healthy: bool, reason: str) -> None:
        """Send the host the first report, or the first reason why this node is unhealthy. Any thread.

        These are a few small frames in the life of a node.
        """
        if healthy:
            self._send(framing.encode(framing.HEALTHY))
        elif not self._is_unhealthy:
            self._is_unhealthy = True
            self._send(framing.encode(framing.UNHEALTHY, buffers=[_encoded(reason)]))

    def _send(self, pieces: list[Any]) -> None:
        self._writer.post(pieces)

    def _close_in_forked_child(self, node: Node) -> None:
        """Have a process that the node forks hold nothing that belongs to the node, but for the two flags."""
        node._leave_to_parent()
        if self._logs is not None:
            self._logs.stop()
        self._channel.close()
        with suppress(Exception):
            black_box.stop_recording_stacks()
        if native.get_signal(signal.SIGTERM) == self._on_sigterm:
            native.set_signal(signal.SIGTERM, native.SIG_DFL)
        for fd in self._held_fds:
            with suppress(OSError):
                native.close(fd)
        self._held_fds.clear()


def _text_of(error: BaseException) -> str:
    from pidfdpool.process import describe

    return describe.error_text(error)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:_MAX_TEXT]
