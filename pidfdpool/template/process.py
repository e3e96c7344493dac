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

import atexit
import errno
import gc
import os
import select
import sys
from contextlib import nullcontext, suppress

from pidfdpool.pidfd import prctl
from pidfdpool.process import exiting, hygiene, lifeline, native
from pidfdpool.process.native import signal
from pidfdpool.serialization import payload, scripts
from pidfdpool.template.birth import Birth, WorkerProcess, own_handle
from pidfdpool.transport import frame_rules, framing
from pidfdpool.transport.channel import Channel
from pidfdpool.worker import mark, script_module
from pidfdpool.worker.boot import PIDFD, Boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from pidfdpool.template.reaper import Undertaker
    from pidfdpool.transport.framing import Buffer, Frame


def main(arguments: list[str]) -> NoReturn:
    """Be the launcher of the exec way: a fresh interpreter, called with `channel host lifeline handles seal`."""
    channel, host, lifeline_fd = fds = tuple(map(int, arguments[:3]))
    hygiene.close_inherited_descriptors(keep=fds)
    for fd in fds:
        native.set_close_on_exec(fd)
    launch(channel, host, lifeline_fd, arguments[3], framing.seal_of(int(arguments[4])))


def launch(
    channel_fd: int,
    host_fd: int,
    lifeline_fd: int,
    handles: str,
    seal: bytes,
    boot: Boot | None = None,
    leave_host: Callable[[], None] | None = None,
) -> NoReturn:
    """Fork the template and exit.

    The template itself tells the host of the launcher, which has nothing to do but to be gone as soon as it can.

    host_fd: readable when the host is gone: its pidfd, or in the fallback another read end of the lifeline.
    boot, leave_host: only in the fork way: what otherwise comes over the channel, and the template's first deed.
    """
    status = 1
    try:
        channel = Channel(native.socket_of(channel_fd), frame_rules.TO_TEMPLATE, descriptors=True, seals=seal)
        launcher, own = os.getpid(), own_handle(handles)
        with hygiene.signals_blocked():
            if not _fork_template(channel, own[0]):
                channel.send(framing.encode(framing.LAUNCHED, value=launcher), own[0])
                for fd in own:
                    native.close(fd)
                Template(channel, host_fd, lifeline_fd, handles).run(boot, leave_host)
        status = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the host is gone, or changed its mind
    except BaseException:
        import traceback

        traceback.print_exc()  # the host can only see that the channel closes
    finally:
        os._exit(status)


def _fork_template(channel: Channel, own: int) -> int:
    """Fork; where there can be no more processes, tell the host and exit."""
    try:
        return native.fork()
    except OSError as error:
        channel.send(framing.encode(framing.LAUNCHED, value=os.getpid()), own)
        channel.send(framing.encode(framing.SPAWN_FAILED, value=error.errno or errno.EAGAIN))
        os._exit(1)


class Template:
    """The template's state and its loop: one per process, on its only thread."""

    def __init__(self, channel: Channel, host_fd: int, lifeline_fd: int, handles: str) -> None:
        self._channel = channel
        self._host_fd = host_fd
        self._lifeline = lifeline_fd
        self._handles = handles
        self._requests: list[Frame] = []  # read, and not yet served
        self._tokens: int | None = None  # of the worker that is asked for next
        self._workers: dict[int, WorkerProcess] = {}  # by pid: only we reap, so no number is reused behind our back
        self._stopping = False
        self._alone = False  # the host is gone: nobody is told anything
        self._family = mark.family()
        self._own_mark = mark.of(0)  # of the worker around this pool, if its host is one
        self._undertaker: Undertaker | None = None

    def run(self, boot: Boot | None, leave_host: Callable[[], None] | None) -> None:
        """Serve until the host is gone, or says STOP and every worker has ended. Called with all signals blocked.

        Raises:
            EOFError: the host is gone.
        """
        own = own_handle(self._handles)
        # First of all: while the host does what there is to do then, so does this process.
        self._channel.send(framing.encode(framing.HELLO, value=os.getpid()), own[0])
        native.close(own[0])
        self._kept_open = [*own[1:], self._lifeline]
        if boot is None:
            script_module.keep_signals()
        hygiene.reset_signals()
        hygiene.leave_session()
        lifeline.signal_me(self._lifeline, signal.SIGCONT)
        if self._handles != PIDFD:  # the host cannot signal this process: whatever it says lets it go on
            lifeline.signal_me(self._channel.fileno(), signal.SIGCONT)
        if leave_host is not None:
            leave_host()
        hygiene.occupy_standard_streams()  # before anything is loaded that keeps a descriptor open
        with suppress(OSError):  # refused by a sandbox: what leaves its worker's process group is not found
            prctl.set_child_subreaper(True)
        prctl.set_name("pidfd-template")
        if boot is None:
            boot = self._receive_boot()
            sys.argv[:] = boot.argv
            gc.enable()  # the launcher was started without: a collection finds nothing while modules are loaded
        else:
            hygiene.renew_streams()
            exiting.forget()
        hygiene.unblock_signals()
        self._boot = boot
        if self._preload():
            self._channel.send(framing.encode(framing.BOOTED))
            self._serve()

    # ---- getting ready -------------------------------------------------------------------------------------

    def _receive_boot(self) -> Boot:
        descriptors: list[int] = []
        boot: Boot | None = None
        while boot is None:
            for frame in self._channel.receive():
                if frame.kind == framing.INHERIT:
                    fd = self._channel.descriptor()
                    if fd is None:
                        raise OSError(errno.EMFILE, "no descriptor number left for what workers inherit")
                    descriptors.append(fd)
                elif frame.kind == framing.BOOT:
                    boot = Boot.load(frame.buffers, descriptors)
                    if boot.script is not None:
                        script_module.install(scripts.Script(*boot.script))
                else:
                    self._requests.append(frame)
        return boot

    def _preload(self) -> bool:
        """Run the preload. False: it failed and that is reported; no other template would do better."""
        try:
            if self._boot.runs_script:
                self._be_no_main_process()
            if self._boot.preloads:
                exiting.own()
                import pidfdpool.template.reaper  # the preload may leave no descriptor to read it with
                from pidfdpool.template.guard import preload

                preload(self._boot, self._host_fd if self._handles == PIDFD else None)
        except BaseException as error:
            from pidfdpool.worker import tracebacks

            told = payload.dump_error(tracebacks.cut(error), payload.ReceivedMain())
            self._channel.send(framing.encode(framing.PRELOAD_FAILED, buffers=told))
            return False
        hygiene.flush_output()
        import faulthandler  # noqa: F401  what every worker needs is loaded once, too

        import pidfdpool.worker.process  # noqa: F401
        from pidfdpool.worker import identity

        identity.prepare()
        # What is there now will be shared with every worker; a collection that touched it would copy its pages.
        gc.freeze()
        return True

    # ---- serving -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        self._doorbell, bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._kept_open += self._doorbell, bell
        with suppress(OSError):  # refused by a sandbox: orphans are reaped later
            native.set_signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(bell, warn_on_full_buffer=False)
        self._epoll = native.epoll()
        callbacks: dict[int, Callable[[], None]] = {
            self._channel.fileno(): self._read,
            self._host_fd: self._host_gone,
            self._doorbell: self._answer_doorbell,
        }
        for fd in callbacks:
            self._epoll.register(fd, select.EPOLLIN)
        self._work_off()
        if self._boot.preloads:
            self._answer_doorbell()  # a child of the preload's may have died before the doorbell was hung
        while not (self._stopping and not self._workers):
            for fd, _ in self._epoll.poll():
                # Any other descriptor is a worker's pidfd, and all that it can say is that the worker ended. All of
                # the dead are looked for, so that a number reused within one batch cannot mislead.
                callbacks.get(fd, self._bury_the_dead)()
        self._sweep_out()
        if self._boot.preloads or scripts.ran_again:  # otherwise nobody has registered any
            lifeline.signal_me(self._lifeline, signal.SIGKILL)  # this process looks at nothing any more
            atexit._run_exitfuncs()
            hygiene.flush_output()

    def _read(self) -> None:
        try:
            self._requests += self._channel.receive()
        except framing.WireError:
            sys.excepthook(*sys.exc_info())  # somebody else writes into the host's end
            self._host_gone()
        except (EOFError, OSError):
            self._host_gone()  # or it has given us up, which comes to the same
        self._work_off()

    def _work_off(self) -> None:
        requests, self._requests = self._requests, []
        for frame in requests:
            if frame.kind == framing.TOKENS:
                self._tokens = self._channel.descriptor()
            elif frame.kind == framing.SPAWN:
                self._spawn(frame)
            elif frame.kind == framing.SCRIPT:
                self._run_script()
            elif frame.kind == framing.SIGNAL:
                self._signal(frame)
            elif frame.kind == framing.STOP:
                self._stopping = True
                self._kill_workers()
        if self._workers:
            self._load_undertaker()  # the first workers are there, and did not have to wait for it

    def _be_no_main_process(self) -> None:
        """Be one of multiprocessing's processes that has a parent: scripts ask for that, too, to guard their work."""
        from pidfdpool.worker import identity

        identity.assume(identity.TEMPLATE, (), self._boot, self._host_fd)

    def _run_script(self) -> None:
        """Run the host's script again, for workers to come. Those that are there are not served meanwhile."""
        from pidfdpool.template.guard import guarded

        self._be_no_main_process()
        exiting.own()
        with guarded(self._host_fd) if self._handles == PIDFD else nullcontext():
            script_module.run_script()
        hygiene.flush_output()
        gc.freeze()

    def _load_undertaker(self) -> Undertaker:
        if self._undertaker is None:
            from pidfdpool.template.reaper import Undertaker

            self._undertaker = Undertaker(self._workers, self._epoll, self._doorbell, self._tell, self._own_mark)
        return self._undertaker

    def _kill_workers(self) -> None:
        if self._workers:
            self._load_undertaker().kill_workers()

    def _sweep_out(self) -> None:
        if self._undertaker is not None:  # otherwise there never was anything that could have left something
            self._undertaker.sweep_out()

    def _bury_the_dead(self) -> None:
        self._load_undertaker().bury_the_dead()

    def _answer_doorbell(self) -> None:
        self._load_undertaker().answer()

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

    def _signal(self, frame: Frame) -> None:
        for worker in self._workers.values():
            if worker.slot == frame.slot and worker.generation == frame.generation:
                with suppress(OSError):
                    worker.handle.send_signal(frame.value, group=True)

    # ---- births --------------------------------------------------------------------------------------------

    def _spawn(self, frame: Frame) -> None:
        given, self._tokens = (self._channel.descriptor(), self._tokens), None
        birth: Birth | None = None
        try:
            birth = Birth(*given, pidfds=self._handles == PIDFD, capture_stderr=self._boot.capture_stderr)
            worker = self._fork_worker(frame, birth)
        except OSError as error:
            number = error.errno or errno.EIO
            self._tell(framing.encode(framing.SPAWN_FAILED, frame.slot, frame.generation, number))
        else:
            self._announce(worker, birth)
        finally:
            if birth is not None:
                birth.close()

    def _announce(self, worker: WorkerProcess, birth: Birth) -> None:
        """Serve the new worker, and give the host what it needs for that."""
        handle = worker.handle
        self._workers[handle.pid] = worker
        self._epoll.register(handle.fileno(), select.EPOLLIN)
        self._tell(framing.encode(framing.BLACKBOX, worker.slot, worker.generation), birth.blackbox)
        if birth.stderr is not None:
            self._tell(framing.encode(framing.STDERR, worker.slot, worker.generation), birth.stderr[0])
        self._tell(framing.encode(framing.SPAWNED, worker.slot, worker.generation, handle.pid), handle.fileno())

    def _fork_worker(self, frame: Frame, birth: Birth) -> WorkerProcess:
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
            os.waitpid(pid, 0)
            raise
        return WorkerProcess(frame.slot, frame.generation, handle, its_mark)

    def _become_worker(self, frame: Frame, birth: Birth, template: int, its_mark: int) -> NoReturn:
        status = 1
        try:
            hygiene.reset_signals()
            birth.keep_workers_part()  # first of all, because what is printed from here on may be captured
            hygiene.lead_group()
            with suppress(OSError):  # refused by a sandbox; the lifeline tells of the host's end all the same
                prctl.set_parent_death_signal(signal.SIGKILL)
            if 0 <= os.getppid() != template:  # below 0: refused by a sandbox
                os._exit(status)  # it died before the line above took effect
            self._channel.close()
            self._epoll.close()
            for worker in self._workers.values():
                worker.handle.close()
            host_fd = lifeline.end_me_with(self._lifeline)
            if host_fd is None:
                host_fd = self._host_fd
            else:
                native.close(self._host_fd)
            for fd in self._kept_open:
                native.close(fd)
            hygiene.unblock_signals()
            from pidfdpool.worker.process import Worker

            own = mark.Mark(its_mark)
            sentinel = birth.sentinel and birth.sentinel[1]
            end = native.socket_of(birth.end), framing.seal_of(frame.value)
            fds = birth.tokens, birth.blackbox
            status = Worker(*end, frame.slot, self._boot, host_fd, sentinel, *fds, own).run()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            hygiene.flush_output()
            os._exit(status)
