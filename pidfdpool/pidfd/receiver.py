"""Receives signals by a descriptor, with all that siginfo_t holds: signalfd(2). Loaded at the first use.

Used in any process, apart from pools. The counterpart of `Pidfd.send_signal` with a value.

A signal goes to the descriptor only if nothing else takes it first. The kernel gives a signal that is sent to a
process to any of its threads that does not block it, and then its handler or its default action runs there, which
often ends the process. So **every thread has to block the signals**. A mask belongs to a thread, and a new thread has
that of the thread which started it. So a receiver is made in the main thread before others are started: it blocks its
signals in the thread that makes it, and says so if there are threads that do not block them. The thread of a pool of
this package blocks all signals.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Iterable
from contextlib import suppress
from types import TracebackType
from typing import NamedTuple, NoReturn, Self
from weakref import WeakSet

from pidfdpool import checks
from pidfdpool.pidfd.errors import PidfdMisused, signal_name, to_pidfd_error
from pidfdpool.process import describe, native

native.load_ctypes()
import ctypes  # noqa: E402

_SIZE = 128  # bytes of struct signalfd_siginfo
_HEAD = struct.Struct("=IiiII")  # ssi_signo, ssi_errno, ssi_code, ssi_pid, ssi_uid
_VALUE = struct.Struct("=Q")  # ssi_ptr
_VALUE_AT = 48
_AT_ONCE = 64  # signals of one read
_SET_BITS = 1024  # of sigset_t, in glibc and musl
_WORD_BITS = 8 * ctypes.sizeof(ctypes.c_ulong)
_CARRY_VALUE = (-1, -2, -3)  # SI_QUEUE, SI_TIMER, SI_MESGQ
_LONGEST_POLL = 1_000_000_000  # milliseconds


class ReceivedSignal(NamedTuple):
    """A signal that a `SignalReceiver` has read.

    Attributes:
        number: which signal, an int; `signal.Signals(number)` names it, unless it is a real-time signal.
        pid: the sender's process; 0 if it is in a pid namespace that is not visible here, or if there is none.
        uid: the sender's real user.
        code: how it was sent (si_code of sigaction(2)): 0 by kill(2), -1 with a value, -6 to a thread, more than 0 by
            the kernel.
        value: the 64 bits that came with it, as 0 to 2**64 - 1; None if it carries no value. A negative number that
            was sent is its two's complement: `value - 2**64`.
    """

    number: int
    pid: int
    uid: int
    code: int
    value: int | None


class SignalReceiver:
    """A descriptor from which signals are read, instead of handlers that are called.

        with SignalReceiver([signal.SIGUSR1, signal.SIGRTMIN]) as receiver:
            loop.add_reader(receiver.fileno(), lambda: print(receiver.pending()))

    The signals are blocked in the thread that makes the receiver, until it is closed. Threads that it starts
    afterwards block them, too. If there are other threads that do not, there is a RuntimeWarning: they may take
    signals that are sent to the process. A signal that is sent to a thread can be read by that thread only.

    The kernel keeps one pending signal of each number below SIGRTMIN, and drops others of that number. Real-time
    signals (SIGRTMIN to SIGRTMAX) queue up, each with its value, in their order, up to RLIMIT_SIGPENDING.

    Processes that are started meanwhile begin with the signals blocked, as with every signal mask. Workers of a pool
    do not. A forked child that uses the copy of the descriptor reads its own signals; epoll there still reports those
    of the parent if the parent has registered it. Thread-safe, but for `close` while another thread reads.

    Args:
        signals: numbers, at least one. SIGKILL and SIGSTOP cannot be received.

    Raises:
        PidfdMisused: there is no such signal, or none at all, or it cannot be received (EINVAL).
        PidfdError: no descriptor is left (EMFILE, ENFILE), or a sandbox refuses signalfd (ENOSYS, EPERM).
    """

    def __init__(self, signals: Iterable[int]) -> None:
        self._fd = -1
        self._signals = _checked(signals)
        self._fd = _signalfd(self._signals)
        self._thread, self._blocked_here = threading.get_ident(), frozenset[int]()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)
        except BaseException:  # it runs the handler of a signal that came just before, after it has blocked them
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self.close()
            raise
        self._blocked_here = self._signals - {int(number) for number in before}
        _open.add(self)
        try:
            self._warn_of_threads()
        except Warning:  # a filter makes errors of warnings
            self.close()
            raise

    @property
    def signals(self) -> frozenset[int]:
        """The numbers of the signals that it receives."""
        return self._signals

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor, which is readable while a signal waits. It is close-on-exec, and never blocks.

        Raises:
            PidfdMisused: it is closed (EBADF).
        """
        if self._fd < 0:
            raise PidfdMisused(errno.EBADF, "fileno of a SignalReceiver", None, "It is closed.")
        return self._fd

    def receive(self, timeout: float | None = None) -> ReceivedSignal | None:
        """Wait for a signal and return it; None if none came in time.

        timeout: seconds; 0 does not wait, None waits without limit.

        Raises:
            PidfdMisused: it is closed (EBADF); timeout is no number of seconds, 0 or more (EINVAL).
        """
        deadline = None if timeout is None else time.monotonic() + _checked_timeout(timeout)
        poll = native.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            found = self._read(1)
            if found:
                return found[0]
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            poll.poll(None if left is None else min(left * 1000 + 1, _LONGEST_POLL))

    def pending(self) -> list[ReceivedSignal]:
        """Return the signals that wait, in the kernel's order, and none if there are none. Does not wait.

        Raises:
            PidfdMisused: it is closed (EBADF).
        """
        found: list[ReceivedSignal] = []
        while more := self._read(_AT_ONCE):
            found += more
            if len(more) < _AT_ONCE:
                break
        return found

    def close(self) -> None:
        """Close the descriptor, and unblock the signals that this receiver has blocked. Once is enough.

        Signals that wait are then delivered as if there had been no receiver: read them before. What another receiver
        of this thread receives as well stays blocked until that one is closed, too. Only the thread that made the
        receiver can unblock them; in another one this closes the descriptor only.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        native.close(fd)
        _open.discard(self)
        if threading.get_ident() == self._thread:
            for other in list(_open):
                if other._thread == self._thread:
                    shared = self._blocked_here & other._signals
                    other._blocked_here |= shared
                    self._blocked_here -= shared
            signal.pthread_sigmask(signal.SIG_UNBLOCK, self._blocked_here)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        """Raise TypeError: a copy would close the descriptor of this one."""
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: its descriptor belongs to it alone")

    def __del__(self) -> None:
        """Close the descriptor of a receiver that nobody has closed. The signals stay blocked."""
        if getattr(self, "_fd", -1) >= 0:
            with suppress(OSError):
                os.close(self._fd)

    def __repr__(self) -> str:
        names = ", ".join(signal_name(number) for number in sorted(self._signals))
        return f"<SignalReceiver {names}{', closed' if self.closed else f', descriptor {self._fd}'}>"

    def _read(self, count: int) -> list[ReceivedSignal]:
        try:
            data = os.read(self.fileno(), count * _SIZE)
        except BlockingIOError:
            return []
        return [_parsed(data, at) for at in range(0, len(data), _SIZE)]

    def _warn_of_threads(self) -> None:
        open_to_signals = _threads_that_take(self._signals)
        if open_to_signals:
            names = {thread.native_id: thread.name for thread in threading.enumerate()}
            shown = ", ".join(names.get(number) or f"thread {number}" for number in open_to_signals)
            warnings.warn(
                f"these threads do not block the signals of {self!r} and may take them: {shown}. Make the receiver "
                "before they are started, or block the signals there with signal.pthread_sigmask",
                RuntimeWarning,
                stacklevel=3,
            )


_open: WeakSet[SignalReceiver] = WeakSet()  # that block signals


def _checked_timeout(timeout: float) -> float:
    number = checks.to_number(timeout)
    if number is None or not number >= 0:
        hint = "A timeout is a number of seconds, 0 or more, or None."
        raise PidfdMisused(errno.EINVAL, f"receive with timeout {describe.repr_of(timeout)}", None, hint)
    return number


def _checked(signals: Iterable[int]) -> frozenset[int]:
    try:
        if isinstance(signals, (str, bytes)):
            raise TypeError  # it has characters
        wanted = list(signals)
    except TypeError:
        raise PidfdMisused(
            errno.EINVAL, "SignalReceiver", None, f"signals is {describe.repr_of(signals)}, not a list of numbers."
        ) from None
    valid = {int(number) for number in signal.valid_signals()}
    for number in wanted:
        if not isinstance(number, int) or isinstance(number, bool) or number not in valid:
            raise PidfdMisused(
                errno.EINVAL, "SignalReceiver", None, f"There is no signal {describe.repr_of(number)}."
            )
        if number in (signal.SIGKILL, signal.SIGSTOP):
            raise PidfdMisused(errno.EINVAL, "SignalReceiver", None, f"{signal_name(number)} cannot be received.")
    if not wanted:
        raise PidfdMisused(errno.EINVAL, "SignalReceiver", None, "signals is empty.")
    return frozenset(map(int, wanted))


def _signalfd(signals: frozenset[int]) -> int:
    mask = (ctypes.c_ulong * (_SET_BITS // _WORD_BITS))()
    for number in signals:
        mask[(number - 1) // _WORD_BITS] |= 1 << (number - 1) % _WORD_BITS
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.signalfd(-1, ctypes.byref(mask), os.O_CLOEXEC | os.O_NONBLOCK)  # SFD_CLOEXEC, SFD_NONBLOCK
    if fd < 0:
        raise to_pidfd_error(OSError(ctypes.get_errno(), ""), "signalfd", None)
    return native.above_stdio(fd)


def _parsed(data: bytes, at: int) -> ReceivedSignal:
    number, _, code, pid, uid = _HEAD.unpack_from(data, at)
    (value,) = _VALUE.unpack_from(data, at + _VALUE_AT)
    return ReceivedSignal(number, pid, uid, code, value if code in _CARRY_VALUE else None)


def _threads_that_take(signals: frozenset[int]) -> list[int]:
    """Return the threads of this process that do not block all of the signals; none where there is no /proc."""
    wanted = sum(1 << (number - 1) for number in signals)
    found = []
    for name in _entries("/proc/self/task"):
        with suppress(OSError, ValueError), open(f"/proc/self/task/{name}/status", "rb") as file:
            blocked = next((int(line.split()[1], 16) for line in file if line.startswith(b"SigBlk:")), wanted)
            if wanted & ~blocked:
                found.append(int(name))
    return sorted(found)


def _entries(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
