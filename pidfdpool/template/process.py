"""What runs in the template process, and in the launcher that leaves it behind.

The host starts the *launcher*, which sends its own pidfd over the channel, forks the *template* and exits; so the
template is nobody's child that the host could reap, and has a session of its own. The template then serves:

    the channel      SPAWN: fork a worker, answer with its pidfd.   STOP: end everything and leave.
    the host's pidfd readable: the host is gone, however it went: kill the workers, leave.
    workers' pidfds  readable: kill what is left of the worker's process group, reap it, report how it died.
    the doorbell     SIGCHLD: something died; reap orphans of workers, which came to us as their subreaper, and kill
                     those whose worker is dead, wherever they went.

It has one thread and runs no code of the user's but the preload, so its forks are safe and it always answers.
The doorbell does not contradict the rule that workers are not tracked by SIGCHLD: that rule protects the host's
handlers, and here there are none but ours. Without it, orphans would stay zombies until something else happened.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import sys
import time
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, NoReturn

from pidfdpool import hygiene, native, payload, wire
from pidfdpool.channel import Channel
from pidfdpool.pidfd import prctl, sentinel_pipe
from pidfdpool.template import descendants
from pidfdpool.template.birth import Birth
from pidfdpool.template.boot import PIDFD, Boot
from pidfdpool.template.guard import guarded
from pidfdpool.worker import mark

if TYPE_CHECKING:
    from collections.abc import Callable

    from pidfdpool.pidfd import ProcessHandle
    from pidfdpool.wire import Buffer, Frame

LAST_SWEEP = 0.5  # seconds to wait, at the end, for what was killed to be dead and to show its own children


def main(arguments: list[str]) -> NoReturn:
    """Be the launcher of the exec way: a fresh interpreter, called with `channel host handles`."""
    channel, host = int(arguments[0]), int(arguments[1])
    hygiene.close_descriptors(keep=(channel, host))
    for fd in (channel, host):
        os.set_inheritable(fd, False)
    launch(channel, host, arguments[2], None)


def launch(channel_fd: int, host_fd: int, handles: str, boot: Boot | None) -> NoReturn:
    """Fork the template and exit. In the fork way boot is given, otherwise it comes over the channel.

    host_fd: readable when the host is gone: its pidfd, or in the fallback the read end of a pipe.
    """
    status = 1
    try:
        channel = Channel(native.socket_of(channel_fd), descriptors=True)
        own = _own_handle(handles)
        channel.send(wire.encode(wire.LAUNCHED, value=os.getpid()), own[0])
        with hygiene.signals_blocked():
            if not _fork_template(channel):
                for fd in own:
                    native.close(fd)
                hygiene.reset_signals()
                Template(channel, host_fd, handles).run(boot)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the host is gone, or changed its mind
    except BaseException:
        import traceback

        traceback.print_exc()  # the host can only see that the channel closes
    finally:
        os._exit(status)


def _fork_template(channel: Channel) -> int:
    """Fork; where there can be no more processes, tell the host and exit."""
    try:
        return native.fork()
    except OSError as error:
        channel.send(wire.encode(wire.SPAWN_FAILED, value=error.errno or errno.EAGAIN))
        os._exit(1)


def _own_handle(handles: str) -> list[int]:
    """Return a descriptor that is readable once this process is gone, and what it must keep open until then."""
    return [os.pidfd_open(os.getpid())] if handles == PIDFD else list(sentinel_pipe())


class _Worker:
    """A child that is a worker."""

    __slots__ = ("generation", "handle", "mark", "slot")

    def __init__(self, slot: int, generation: int, handle: ProcessHandle, mark: int) -> None:
        self.slot = slot
        self.generation = generation
        self.handle = handle
        self.mark = mark


class Template:
    """The template's state and its loop: one per process, on its only thread."""

    def __init__(self, channel: Channel, host_fd: int, handles: str) -> None:
        self._channel = channel
        self._host_fd = host_fd
        self._handles = handles
        self._requests: list[Frame] = []  # read, and not yet served
        self._workers: dict[int, _Worker] = {}  # by pid: only we reap, so no number is reused behind our back
        self._stopping = False
        self._alone = False  # the host is gone: nobody is told anything
        self._family = mark.family()
        self._own_mark = mark.of(0)  # of the worker around this pool, if its host is one
        self._strays = False  # whether there was something to kill when we last looked

    def run(self, boot: Boot | None) -> None:
        """Serve until the host is gone, or says STOP and every worker has ended.

        Raises:
            EOFError: the host is gone.
        """
        os.setsid()
        prctl.set_child_subreaper(True)
        prctl.set_name("pidfd-template")
        own = _own_handle(self._handles)
        self._channel.send(wire.encode(wire.HELLO, value=os.getpid()), own[0])
        native.close(own[0])
        self._kept_open = own[1:]
        hygiene.occupy_standard_streams()
        if boot is None:
            boot = self._receive_boot()
            sys.argv[:] = boot.argv
        else:
            hygiene.renew_streams()
        hygiene.forget_exit_functions()
        hygiene.unblock_signals()
        self._boot = boot
        if self._preload():
            self._channel.send(wire.encode(wire.BOOTED))
            self._serve()

    # ---- getting ready -------------------------------------------------------------------------------------

    def _receive_boot(self) -> Boot:
        descriptors: list[int] = []
        boot: Boot | None = None
        while boot is None:
            for frame in self._channel.receive():
                if frame.kind == wire.INHERIT:
                    fd = self._channel.descriptor()
                    if fd is None:
                        raise OSError(errno.EMFILE, "no descriptor number left for what workers inherit")
                    descriptors.append(fd)
                elif frame.kind == wire.BOOT:
                    boot = Boot.load(frame.buffers, descriptors)
                else:
                    self._requests.append(frame)
        return boot

    def _preload(self) -> bool:
        """Run the preload. False: it failed and that is reported; no other template would do better."""
        try:
            with guarded(self._host_fd) if self._boot.preloads and self._handles == PIDFD else nullcontext():
                self._boot.run_preload()
        except BaseException as error:
            self._channel.send(wire.encode(wire.PRELOAD_FAILED, buffers=payload.dump_error(error)))
            return False
        hygiene.flush_output()
        import faulthandler  # noqa: F401  what every worker needs is loaded once, too

        import pidfdpool.worker.process  # noqa: F401

        # What is there now will be shared with every worker; a collection that touched it would copy its pages.
        gc.freeze()
        return True

    # ---- serving -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._doorbell, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        native.set_signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        self._epoll = native.epoll()
        callbacks: dict[int, Callable[[], None]] = {
            self._channel.fileno(): self._read,
            self._host_fd: self._host_gone,
            self._doorbell: self._reap,
        }
        for fd in callbacks:
            self._epoll.register(fd, select.EPOLLIN)
        self._work_off()
        self._reap()  # a child of the preload's may have died before the doorbell was hung
        while not (self._stopping and not self._workers):
            for fd, _ in self._epoll.poll():
                # Any other descriptor is a worker's pidfd, and all that it can say is that the worker ended. All of
                # the dead are looked for, so that a number reused within one batch cannot mislead.
                callbacks.get(fd, self._bury_the_dead)()
        self._sweep_out()

    def _read(self) -> None:
        try:
            self._requests += self._channel.receive()
        except (EOFError, ConnectionResetError):
            self._host_gone()  # or it has given us up, which comes to the same
        self._work_off()

    def _work_off(self) -> None:
        requests, self._requests = self._requests, []
        for frame in requests:
            if frame.kind == wire.SPAWN:
                self._spawn(frame)
            elif frame.kind == wire.SIGNAL:
                self._signal(frame)
            elif frame.kind == wire.STOP:
                self._stopping = True
                self._kill_workers()

    def _tell(self, pieces: list[Buffer], descriptor: int | None = None) -> None:
        if self._alone:
            return
        try:
            self._channel.send(pieces, descriptor)
        except (BrokenPipeError, ConnectionResetError):
            self._host_gone()

    def _host_gone(self) -> NoReturn:
        self._alone = True
        self._kill_workers()
        self._sweep_out()
        os._exit(0)

    def _kill_workers(self) -> None:
        for worker in self._workers.values():
            descendants.kill_group(worker.handle)

    def _signal(self, frame: Frame) -> None:
        for worker in self._workers.values():
            if worker.slot == frame.slot and worker.generation == frame.generation:
                with suppress(OSError):
                    worker.handle.send_signal(frame.value, group=True)

    # ---- births --------------------------------------------------------------------------------------------

    def _spawn(self, frame: Frame) -> None:
        end = self._channel.descriptor()
        birth: Birth | None = None
        try:
            if end is None:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            birth = Birth(end, pidfds=self._handles == PIDFD, capture_stderr=self._boot.capture_stderr)
            worker = self._fork_worker(frame, birth)
        except OSError as error:
            number = error.errno or errno.EIO
            self._tell(wire.encode(wire.SPAWN_FAILED, frame.slot, frame.generation, number))
        else:
            self._announce(worker, birth)
        finally:
            if birth is not None:
                birth.close()

    def _announce(self, worker: _Worker, birth: Birth) -> None:
        """Serve the new worker, and give the host what it needs for that."""
        handle = worker.handle
        self._workers[handle.pid] = worker
        self._epoll.register(handle.fileno(), select.EPOLLIN)
        self._tell(wire.encode(wire.BLACKBOX, worker.slot, worker.generation), birth.blackbox)
        if birth.stderr is not None:
            self._tell(wire.encode(wire.STDERR, worker.slot, worker.generation), birth.stderr[0])
        self._tell(wire.encode(wire.SPAWNED, worker.slot, worker.generation, handle.pid), handle.fileno())

    def _fork_worker(self, frame: Frame, birth: Birth) -> _Worker:
        template = os.getpid()
        its_mark = mark.make(self._family, frame.generation)
        with hygiene.signals_blocked():
            pid = native.fork()
            if not pid:
                self._become_worker(frame, birth, template, its_mark)
        # The group must exist before the host can signal it; the worker does the same, whoever comes first.
        with suppress(OSError):
            os.setpgid(pid, pid)
        try:
            handle = birth.handle(pid)
        except OSError:
            # Nobody could watch it. It is our child and not reaped, so the number, all that we have, is its own.
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED)
            raise
        return _Worker(frame.slot, frame.generation, handle, its_mark)

    def _become_worker(self, frame: Frame, birth: Birth, template: int, its_mark: int) -> NoReturn:
        status = 1
        try:
            hygiene.reset_signals()
            birth.keep_workers_part()  # first of all, because what is printed from here on may be captured
            os.setpgid(0, 0)
            prctl.set_parent_death_signal(signal.SIGKILL)
            if os.getppid() != template:
                os._exit(status)  # it died before the line above took effect
            self._channel.close()
            self._epoll.close()
            for worker in self._workers.values():
                worker.handle.close()
            for fd in self._kept_open:
                native.close(fd)
            hygiene.unblock_signals()
            from pidfdpool.worker.process import Worker

            own = mark.Mark(its_mark)
            sentinel = birth.sentinel and birth.sentinel[1]
            end = native.socket_of(birth.end)
            status = Worker(end, frame.slot, self._boot, self._host_fd, sentinel, birth.blackbox, own).run()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            hygiene.flush_output()
            os._exit(status)

    # ---- deaths --------------------------------------------------------------------------------------------

    def _bury_the_dead(self) -> None:
        for worker in list(self._workers.values()):
            if not worker.handle.alive():
                self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        # While the worker is a zombie its number, and with it the group's, cannot be taken by anybody else.
        descendants.kill_group(worker.handle)
        pid = worker.handle.pid
        try:
            reaped, status, usage = os.wait4(pid, os.WNOHANG)  # its own child's number; pidfds tell no usage
            spent = wire.USAGE.pack(usage.ru_maxrss * 1024, usage.ru_utime + usage.ru_stime)
            told = wire.encode(wire.DIED, worker.slot, worker.generation, status, [spent])
        except ChildProcessError:
            # A thread of the preload's took it. Nothing is said: in a moment the host calls the status unknown.
            reaped, told = pid, None
        with suppress(OSError):
            self._epoll.unregister(worker.handle.fileno())
        if not reaped:
            return  # readable but not yet waitable (a tracer has it); the doorbell rings when it is
        # The handle does not know that the number is free now; nothing is ever sent through it again.
        del self._workers[pid]
        worker.handle.close()
        if told is not None:
            self._tell(told)

    def _reap(self) -> None:
        """Reap whatever is dead, and kill what it leaves behind. Every death of a child's leads here."""
        with suppress(BlockingIOError):
            while os.read(self._doorbell, 4096):
                pass
        self._reap_all()
        marks = {self._own_mark, *(worker.mark for worker in self._workers.values())}
        self._strays = descendants.kill_strays(self._workers, marks)

    def _reap_all(self) -> None:
        """Look before reaping, because a worker's status must not be lost."""
        with suppress(ChildProcessError):
            while True:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if dead is None:
                    return
                worker = self._workers.get(dead.si_pid)
                if worker is not None:
                    self._bury(worker)
                    if dead.si_pid in self._workers:
                        return
                else:
                    os.waitid(os.P_PID, dead.si_pid, os.WEXITED | os.WNOHANG)

    def _sweep_out(self) -> None:
        """See the workers dead, and all that they leave; for no longer than the end may take."""
        deadline = time.monotonic() + LAST_SWEEP
        poller = native.poll()
        poller.register(self._doorbell, select.POLLIN)
        while True:
            self._reap()
            left = deadline - time.monotonic()
            if left <= 0 or not (self._workers or self._strays):
                return
            poller.poll(left * 1000)
