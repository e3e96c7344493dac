"""Answers the processes of a pool or a swarm that ask for the host's resource tracker (`worker.shared_tracker`).

Called by the pool thread, or a swarm's supervisor, without the pool's lock. The lock of multiprocessing's tracker is
held meanwhile; a thread that holds the pool's lock may wait for it in a finalizer of multiprocessing's.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from pidfdpool.pidfd import sentinel_pipe
from pidfdpool.process import native
from pidfdpool.transport.channel import hand_over
from pidfdpool.worker import shared_tracker

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.transport.descriptor_requests import Inbox

_LOCK_TIMEOUT = 5.0  # seconds that a thread of the host's may take to start a tracker itself, at most


def answer(inbox: Inbox, start: Callable[[int], None]) -> None:
    """Answer one request. No answer means that there is no tracker to be had.

    start: has a tracker started that reads a pipe, whose read end it takes over.
    """
    reply = inbox.receive()
    if reply is None:
        return
    fd = None
    try:
        fd = _tracker(start)
        if fd is not None:
            hand_over(reply, fd)
    except OSError:
        pass  # no descriptor is left, or whoever has asked is gone
    finally:
        reply.close()
        if fd is not None:
            native.close(fd)


def _tracker(start: Callable[[int], None]) -> int | None:
    """Return a duplicate of the descriptor to which the host's tracker listens, which the caller owns.

    If the host has none, it gets one, because what a worker registers the host may remove, and the other way round.
    A host that is itself a worker of some pool uses the tracker of that pool's host.
    """
    try:
        from multiprocessing import resource_tracker
    except ImportError:  # the host has changed its root directory, and can load nothing any more
        return None
    tracker: Any = resource_tracker._resource_tracker
    if not tracker._lock.acquire(timeout=_LOCK_TIMEOUT):
        return None
    read_end = None
    try:
        shared_tracker.fetch(tracker)
        if tracker._fd is not None and tracker._pid is None and _is_gone(tracker._fd):
            fd, tracker._fd = tracker._fd, None  # it is no child of the host's that multiprocessing would wait for
            native.close(fd)
        if tracker._fd is None:
            read_end, tracker._fd = sentinel_pipe()
        duplicate = native.duplicate(tracker._fd)
    finally:
        tracker._lock.release()
        if read_end is not None:
            start(read_end)
    return duplicate


def _is_gone(fd: int) -> bool:
    """Return whether nobody reads this pipe any more."""
    poller = native.poll()
    poller.register(fd, 0)
    return any(events & select.POLLERR for _, events in poller.poll(0))
