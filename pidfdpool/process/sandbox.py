"""Checks that this process may make the system calls that every pool needs. It makes each of them once.

Called in the host, by the loop, before the first pool of a process starts, on the thread of the first submit.

A sandbox (seccomp) may refuse any system call. A pool can do without many of those that it makes: see
docs/environment.md. Without those that are tried here no pool works, and the failure would show late and in another
process, as "Operation not permitted".
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import closing
from typing import TYPE_CHECKING

from pidfdpool.process import native
from pidfdpool.process.counters import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_checked_in: int | None = None  # the process


def check() -> None:
    """Try the system calls that every pool needs, once per process. That takes 0.05 ms.

    Raises:
        OSError: a system call is refused; the message names it. Or there is no descriptor or memory left.
    """
    global _checked_in  # noqa: PLW0603  once is enough
    if _checked_in == os.getpid():
        return
    for name, call in _calls():
        try:
            call()
        except OSError as error:
            if error.errno not in REFUSALS:
                raise
            text = f"this process may not call {name} ({error.strerror}), perhaps in a sandbox. A pool needs that"
            raise type(error)(error.errno, text) from error
    _checked_in = os.getpid()


def _calls() -> Iterator[tuple[str, Callable[[], object]]]:
    yield "getpid", _getpid
    yield "pipe2", _pipe
    yield "rt_sigprocmask", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ())
    ends: list[native.Socket] = []
    yield "socketpair", lambda: ends.extend(native.socketpair())
    ours, theirs = ends
    with closing(ours), closing(theirs):
        fd = ours.fileno()
        yield "sendmsg", lambda: theirs.sendmsg((b"1",))
        yield "recvmsg", lambda: ours.recvmsg(1)
        yield "sendto", lambda: theirs.send(b"2")
        yield "poll (ppoll)", lambda: native.poll().poll(0)
        epolls: list[select.epoll] = []
        yield "epoll_create1", lambda: epolls.append(native.epoll())
        with epolls[0] as epoll:
            yield "epoll_ctl", lambda: epoll.register(fd, select.EPOLLIN)
            yield "epoll_wait", lambda: epoll.poll(0)
        yield "recvfrom", lambda: ours.recv(1)
        yield "fcntl", lambda: native.close(native.duplicate(fd))
        yield "dup2", lambda: os.dup2(fd, fd)


def _pipe() -> None:
    for fd in os.pipe():
        native.close(fd)


def _getpid() -> None:
    if os.getpid() <= 0:
        raise PermissionError(REFUSALS[0], os.strerror(REFUSALS[0]))
