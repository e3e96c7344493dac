"""Requests for one descriptor, from any of many processes to one, over a datagram socket that all of them share.

The template and its workers, and whatever these fork, have copies of one end (`request`). The host has the other one
(`receive`). A request is a byte with one end of a new socket pair, in which the answer comes. So nobody reads the
answer of another one, no request has a number, and a requester whose host is gone reads an end of file.

The socket is apart from the workers' channels, because any thread may ask, in the middle of a task, and so may
processes that a task has forked. Datagrams of several writers do not mix.
"""

from __future__ import annotations

import _socket
import os
from contextlib import suppress

from pidfdpool.process import native
from pidfdpool.transport import channel as channels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pidfdpool.process.native import Socket


class Inbox:
    """The host's end."""

    def __init__(self) -> None:
        self._end: Socket | None = None

    def open(self) -> int:
        """Make both ends, and return that of the requesters, which the caller owns. Called once.

        Raises:
            OSError: no descriptor is left.
        """
        self._end, others = channels.pair(datagrams=True)
        return others.detach()

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a request; -1: it is not open."""
        return -1 if self._end is None else self._end.fileno()

    def receive(self) -> Socket | None:
        """Return the socket into which `channel.hand_over` puts the answer; None: what came is no request.

        The caller owns it. Whatever else came is closed: a requester runs the user's code.
        """
        assert self._end is not None
        sent: list[int] = []
        with suppress(OSError):
            sent = channels.receive_descriptors(self._end)
        if len(sent) == 1:
            with suppress(OSError):  # it is no socket
                return native.socket_of(sent[0])
        for fd in sent:
            native.close(fd)
        return None

    def close(self) -> None:
        """Close it, if it is open. Who is waiting for an answer reads an end of file. Idempotent."""
        if self._end is not None:
            self._end.close()


class Requester:
    """What a process needs to ask: the requesters' end, which it holds for good."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = os.fstat(fd)

    def request(self) -> int | None:
        """Return the descriptor that was asked for, which the caller owns; None: nobody answers. Waits."""
        ours, theirs = channels.pair()
        try:
            try:
                self._send(theirs.fileno())
            finally:
                theirs.close()  # or there would be no end of file if nobody else has it
            return channels.take_over(ours)
        except OSError:
            return None
        finally:
            ours.close()

    def _send(self, reply: int) -> None:
        """Send a request, unless the task has closed this end, and another file may have its number."""
        if not os.path.samestat(os.fstat(self._fd), self._identity):
            raise ConnectionError
        end = native.socket_of(self._fd)
        try:
            end.sendmsg((b"\0",), [channels.scm_rights(reply)], _socket.MSG_NOSIGNAL)
        finally:
            end.detach()
