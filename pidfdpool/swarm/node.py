"""What a node's target gets: `Node`, by which it reports how it is and learns what it is asked to do.

Made by `node_process` in the new process, before it calls the target. Any thread of the node may use it. A process
that the node forks has no part in it: there `healthy` and `unhealthy` raise RuntimeError.
"""

from __future__ import annotations

import errno
import os
import select
import time

from pidfdpool.process import counters, native

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from pidfdpool.pidfd.receiver import SignalReceiver

# Sent to nodes as messages: it is blocked in each node from its birth, so that none comes before it is received.
MESSAGE_SIGNAL = int(native.signal.SIGRTMIN)


class Flag:
    """Something that a node is asked to do. It is set once, and never cleared. As `threading.Event` without `clear`.

    Thread-safe. In a process that the node forks it can be used as well.
    """

    __slots__ = ("_fd", "_is_set")

    def __init__(self, fd: int) -> None:
        """fd: a counter (`process.counters`) that is above 0 once the flag is set."""
        self._fd = fd
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set. Takes a microsecond, and less once it is."""
        return self._is_set or self.wait(0)

    def set(self) -> None:
        """Set it in this process, as a request of the swarm would."""
        counters.add(self._fd)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, at most timeout seconds; None: without limit. Return whether it is.

        Raises:
            OSError: something in this process has closed the flag's descriptor.
            TypeError, ValueError: timeout is no number of seconds.
        """
        if self._is_set:
            return True
        seconds = _seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        poll = native.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if _is_readable(poll, None if left is None else min(left, native.LONGEST_WAIT) * 1000):
                self._is_set = True
                return True
            if left is not None and left <= 0:
                return False

    def fileno(self) -> int:
        """Return a descriptor that is readable once the flag is set, for an event loop. It must not be read."""
        return self._fd

    async def wait_async(self, timeout: float | None = None) -> bool:
        """Wait as `wait` does, without blocking the event loop of asyncio. Any number of coroutines may wait."""
        import asyncio

        seconds = _seconds(timeout)
        if self._is_set:
            return True
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        own = os.dup(self._fd)  # a loop watches a descriptor for one reader only
        loop.add_reader(own, _set, ready)
        try:
            await asyncio.wait([ready], timeout=seconds)
        finally:
            loop.remove_reader(own)
            os.close(own)
        return self.is_set()

    def __repr__(self) -> str:
        return f"<Flag {'set' if self.is_set() else 'not set'}>"


def _seconds(timeout: float | None) -> float | None:
    """Return how long to wait; None: without limit.

    Raises:
        TypeError, ValueError: the timeout is no number of seconds.
    """
    if timeout is None or timeout == 0:  # `is_set` is called often
        return timeout
    from pidfdpool import checks  # loads more than a node needs at its start

    return checks.wait_time("timeout", timeout)


def _is_readable(poll: select.poll, timeout: float | None) -> bool:
    """Wait for the one descriptor of `poll`, at most that many milliseconds; return whether it is readable."""
    ready = poll.poll(timeout)
    if ready and ready[0][1] & select.POLLNVAL:  # otherwise a node would take itself for done
        fd = ready[0][0]
        raise OSError(errno.EBADF, f"something in this process has closed descriptor {fd}, which belongs to the node")
    return bool(ready)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class Node:
    """One node of a swarm, for the target that runs in it. Made by the swarm.

    Attributes:
        id: its number, from 0 to the number of nodes - 1. A node that is started again keeps it.
        attempt: the number of the process of this node, 1 for the first.
        stopping: a `Flag`: the target is to return. What it has not done after `stop_timeout` it never will do.
        quiet: a `Flag`: the target is to take no new work. A swarm that is quiet starts no node again.
    """

    def __init__(
        self,
        number: int,
        attempt: int,
        stopping: Flag,
        quiet: Flag,
        host_fd: int,
        report: memoryview[float] | None,
        tell: Callable[[bool, str], object],
    ) -> None:
        """Take what the swarm has made.

        host_fd: readable once the host is gone.
        report: memory that the host sees: one double, the time.monotonic() of the last report.
        tell: sends the host the first report (True), or why the node is unhealthy (False).
        """
        self.id = number
        self.attempt = attempt
        self.stopping = stopping
        self.quiet = quiet
        self._host_fd = host_fd
        self._report = report
        self._tell = tell
        self._has_reported = False

    def healthy(self) -> None:
        """Report that this node is healthy. To be called more often than every `report_timeout` seconds.

        It writes the time into shared memory, which takes less than a microsecond and wakes nobody. Only the first
        report is a message. So call it in each turn of a loop. Call it where the work is done: what reports from a
        thread of its own will go on to report when the work hangs.

        Raises:
            RuntimeError: this process was forked from the node.
        """
        report = self._report
        if report is None:
            raise RuntimeError(f"node {self.id} reports from the process of its own, and this one was forked from it")
        report[0] = time.monotonic()
        if not self._has_reported:
            self._has_reported = True
            self._tell(True, "")

    def unhealthy(self, reason: str | int) -> None:
        """Report that this node is not healthy. The swarm stops it, and starts it again after `restart_pause`.

        reason: why, as text or as a code; it is in the event UNHEALTHY. Only the first reason counts.

        Raises:
            TypeError: reason is neither.
            RuntimeError: this process was forked from the node.
        """
        if isinstance(reason, bool) or not isinstance(reason, (str, int)):
            from pidfdpool.process import describe

            raise TypeError(f"reason must be a text or a code, not {describe.repr_of(reason)}")
        if self._report is None:
            raise RuntimeError(f"node {self.id} reports from the process of its own, and this one was forked from it")
        self._tell(False, str.__str__(reason) if isinstance(reason, str) else f"code {int(reason)}")

    def orphaned(self) -> bool:
        """Return whether the host is gone. By default the node is killed within a second then, whatever it does.

        Raises:
            OSError: something in this process has closed the descriptor by which that is seen.
        """
        poll = native.poll()
        poll.register(self._host_fd, select.POLLIN)
        return _is_readable(poll, 0)

    def messages(self, *signals: int) -> SignalReceiver:
        """Return a `pidfdpool.pidfd.SignalReceiver` of what `Swarm.signal` sends. Close it, or use `with`.

        Call it on the main thread. SIGRTMIN is blocked in a node from its birth on, so that a message which comes
        before this call waits. Call it for other signals before the node has other threads; a signal that comes
        before the call has its usual effect, which mostly ends the node.

        signals: which ones. Default: SIGRTMIN.

        Raises:
            PidfdError: as `SignalReceiver`.
        """
        from pidfdpool.pidfd.receiver import SignalReceiver

        return SignalReceiver(signals or (MESSAGE_SIGNAL,))

    def _leave_to_parent(self) -> None:
        """Note that this process was forked from the node."""
        report, self._report = self._report, None
        if report is not None:
            report.release()

    def __repr__(self) -> str:
        return f"<Node {self.id}, attempt {self.attempt}>"
