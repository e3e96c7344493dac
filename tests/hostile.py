"""What tasks do to the worker they run in."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import stat
import struct
import sys
import time
from contextlib import suppress

from tests import calls

HEADER = struct.Struct("<BBHIq")


def frame(kind: int, lengths=(), body: bytes = b"", *, count=None, slot=0, generation=0, value=0) -> bytes:
    """Return the bytes of a frame, as right or as wrong as they are asked for."""
    head = HEADER.pack(kind, len(lengths) if count is None else count, slot, generation, value)
    return head + struct.pack(f"<{len(lengths)}Q", *lengths) + body


def sockets() -> list[int]:
    """Return this process's sockets: in a worker, its channel."""
    found = []
    for fd in range(3, 256):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
    return found


def eventfds() -> list[int]:
    """Return this process's eventfds: in a worker, its tokens."""
    found = []
    for fd in range(3, 256):
        with suppress(OSError):
            if "eventfd" in os.readlink(f"/proc/self/fd/{fd}"):
                found.append(fd)
    return found


def pipes() -> list[int]:
    """Return the pipe of a worker's answers, by its high number: below may be pipes of whoever runs the tests."""
    found = []
    for fd in range(255, 1024):
        with suppress(OSError):
            if stat.S_ISFIFO(os.fstat(fd).st_mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
                found.append(fd)
    return found


def close_pipe_and_sleep() -> None:
    os.close(*pipes())
    time.sleep(60)


def pipes_here_and_in_a_child() -> tuple[int, int, int]:
    """Return the inode of the pipe of answers, how many such pipes a forked child has, and this process."""
    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, bytes((len(pipes()),)))
        os._exit(0)
    os.wait()
    return os.stat(*pipes()).st_ino, os.read(reader, 1)[0], len(pipes())


def babble(data: bytes, seconds: float = 0.0) -> None:
    """Write into every pipe and then into every socket that is there, and go on for so long."""
    for fd in [*pipes(), *sockets()]:
        os.write(fd, data)
    time.sleep(seconds)


def with_cookie(kind: int, *, buffers=(), lengths=None, slot=0, value=0) -> None:
    """Write a frame as the worker's own loop does, by its own pipe. lengths: what it claims of its buffers."""
    from pidfdpool.transport import framing

    answers = _worker()._answers
    pieces = framing.encode(kind, slot, 0, value, buffers)
    if lengths is not None:
        pieces = [frame(kind, lengths, slot=slot, value=value), *buffers]
    answers.send(pieces)
    time.sleep(30)


def _worker():
    at = sys._getframe()
    while type(at.f_locals.get("self")).__name__ != "Worker":
        at = at.f_back
    return at.f_locals["self"]


def close_everything_and(then: str, path: str = "") -> None:
    """Close all descriptors but the standard streams."""
    os.closerange(3, 256)
    if then == "sleep":
        time.sleep(60)
    if then == "fill":  # their numbers are taken by others, which never have anything to read
        for _ in range(100):
            os.pipe()
        time.sleep(60)


def widen_pipe() -> None:
    """Have the kernel take more of what is written before anybody reads."""
    for fd in pipes():
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1 << 20)


def close_standard_error() -> int:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)
    return os.getpid()


def put_tokens(count: int, then: str = "return", path: str = "") -> int:
    """Put down tokens for this worker, which only the host should."""
    if path:
        calls.append(path, os.getpid())
    for fd in eventfds():
        os.eventfd_write(fd, count)
    if then == "die":
        calls.die()
    return len(eventfds())


def set_all_blocking(blocking: bool, then: str = "return", release: str = "") -> int:
    """Set this of all descriptors that are a worker's own; return this process's number.

    In the fork way there are also pipes of the host's, such as those of whoever runs the tests.
    """
    if then == "wait first":
        calls.wait_for(release)
    for fd in (*sockets(), *eventfds(), *pipes()):
        os.set_blocking(fd, blocking)
    if then == "wait":
        calls.wait_for(release)
    return os.getpid()


def fill_tokens() -> int:
    """Put down as many tokens as the kernel can count; return this process's number."""
    for fd in eventfds():
        for bits in reversed(range(64)):
            with suppress(BlockingIOError):
                os.eventfd_write(fd, 1 << bits)
    return os.getpid()


def cut_black_box() -> int:
    """Cut the file short in which this worker notes what it does."""
    for fd in range(3, 256):
        with suppress(OSError):
            if "blackbox" in os.readlink(f"/proc/self/fd/{fd}"):
                os.ftruncate(fd, 0)
    return os.getpid()


def end_channel_and_wait(path: str, release: str) -> None:
    """Tell the host that nothing more comes through the channel, and go on."""
    for fd in sockets():
        with socket.socket(fileno=os.dup(fd)) as end:
            if end.type == socket.SOCK_STREAM:
                end.shutdown(socket.SHUT_WR)
    calls.note(path)
    calls.wait_for(release)


def leave_no_descriptor() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


def forget_where_modules_are() -> None:
    """Have no import find anything, as where the process has another root directory."""
    sys.meta_path.clear()


def put_tokens_and_wait(put: str, release: str) -> None:
    put_tokens(1000)
    calls.note(put)
    calls.wait_for(release)


def drain_tokens(then: str = "return", release: str = "") -> None:
    """Take all tokens of this worker."""
    for fd in eventfds():
        with suppress(BlockingIOError):
            while True:
                os.eventfd_read(fd)
    if release:
        calls.wait_for(release)
    if then == "die":
        calls.die()


def run_once(folder: str, name: object, seconds: float = 0.0) -> object:
    """Leave a trace of each time this runs."""
    calls.append(f"{folder}/{name}", os.getpid())
    time.sleep(seconds)
    return name


def address_space() -> int:
    """Return how many bytes of address space this process has taken."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def limit_memory(spare: int) -> None:
    """Leave this process so many bytes of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (address_space() + spare, resource.getrlimit(resource.RLIMIT_AS)[1]))


def make_bytes(size: int) -> bytes:
    return bytes(size)


def make_text(size: int) -> str:
    return "x" * size


def make_large_error(size: int) -> None:
    raise ValueError("x" * size)
