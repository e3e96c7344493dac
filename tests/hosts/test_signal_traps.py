"""Signals, children and handlers: what belongs to the whole process, and what a host may have done with it."""

from __future__ import annotations

import textwrap

import pytest

from tests.hosts.observing import expect
from tests.hosts.trapping import trap

SECTION = "Signals and children of the host"

both_moments = pytest.mark.parametrize("moment", ["laid before the pool's start", "laid after it"])


def around(setup: str, moment: str) -> str:
    """Return a program that lays the trap before the pool's start, or while a pool is at work."""
    if moment == "laid before the pool's start":
        return f"{setup}\nuse()\n"
    return f"""
with ProcessPoolExecutor(2) as pool:
    compute(pool)
{textwrap.indent(setup, "    ")}
    compute(pool)
    error = lose(pool, tasks.leave, 3)
    if OURS:
        expect(error.exit_status.code == 3, "another exit status", error)
        go_on(pool)
"""


# ---- children ---------------------------------------------------------------------------------------------------

REAPING = """
reaped = []
def reap(*_):
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        reaped.append(os.waitstatus_to_exitcode(status))
signal.signal(signal.SIGCHLD, reap)
"""


@pytest.mark.case(
    SECTION, "a SIGCHLD handler loops over waitpid(-1, WNOHANG), and finds no child of ours", ways="both"
)
@both_moments
def test_a_handler_that_reaps_all(contender, moment):
    (reaped,) = trap(contender, around(REAPING, moment) + "tell(reaped)\n")
    expect(not reaped, f"the host's handler reaps the pool's processes: exit codes {sorted(set(reaped))}")


@pytest.mark.case(SECTION, "SIGCHLD is ignored", ways="both")
@both_moments
def test_an_ignored_sigchld(contender, moment):
    trap(contender, around("signal.signal(signal.SIGCHLD, signal.SIG_IGN)", moment))


@pytest.mark.case(SECTION, "SIGCHLD has SA_NOCLDWAIT: children vanish without a trace", ways="both")
@both_moments
def test_children_that_vanish(contender, moment):
    setup = "from tests.hosts.programs import dispositions\ndispositions.let_children_vanish()"
    trap(contender, around(setup, moment))


@pytest.mark.case(SECTION, "the main thread calls os.wait() again and again while threads use a pool", ways="both")
def test_a_main_thread_that_waits_for_children(contender):
    (reaped,) = trap(
        contender,
        """
        user = threading.Thread(target=use)
        user.start()
        reaped = []
        while user.is_alive():
            try:
                reaped.append(os.waitstatus_to_exitcode(os.wait()[1]))
            except ChildProcessError:
                time.sleep(0.001)
        tell(reaped)
        """,
    )
    # Our launcher is the host's child for a moment, and always ends with 0.
    expect(not any(reaped), f"os.wait() returns workers of the pool: exit codes {sorted(set(reaped))}")


@pytest.mark.case(SECTION, "a thread sits in waitpid(-1, 0) for ever", ways="both")
def test_a_thread_that_waits_for_children(contender):
    (reaped,) = trap(
        contender,
        """
        reaped = []
        def sit():
            while True:
                try:
                    reaped.append(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]))
                except ChildProcessError:
                    time.sleep(0.001)
        threading.Thread(target=sit, daemon=True).start()
        use()
        tell(reaped)
        """,
    )
    expect(not any(reaped), f"the thread is given workers of the pool: exit codes {sorted(set(reaped))}")


# ---- masks, the wakeup fd, timers -------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "the host blocks every signal; a worker is sent SIGTERM", ways="both")
def test_a_host_that_blocks_all_signals(contender):
    trap(
        contender,
        """
        mask = signal.valid_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        def blocked():
            return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            told = result(pool.submit(signal.pthread_sigmask, signal.SIG_BLOCK, ()))
            expect(not told, "tasks run with the host's signals blocked")
            error = lose(pool, tasks.die, signal.SIGTERM)
            if OURS:
                expect(error.exit_status.signal == signal.SIGTERM, "another exit status", error)
        use()
        now = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        expect(now == mask - {signal.SIGKILL, signal.SIGSTOP}, "the host's mask is another one", sorted(mask - now))
        """,
    )


@pytest.mark.case(SECTION, "the host has a wakeup fd and SIGTERM is sent to a worker", ways="both")
def test_a_wakeup_fd(contender):
    trap(
        contender,
        """
        signal.signal(signal.SIGTERM, lambda *_: None)
        mine, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            os.kill(result(pool.submit(tasks.pid)), signal.SIGTERM)
        use()
        try:
            observed(f"a signal to a worker is written into the host's wakeup fd\\n{os.read(mine, 100)!r}")
        except BlockingIOError:
            pass
        expect(signal.set_wakeup_fd(-1) == writer, "the wakeup fd is another one")
        """,
    )


@pytest.mark.case(SECTION, "a wakeup fd and a handler for SIGCHLD, as asyncio has them; two workers die", ways="both")
def test_a_wakeup_fd_and_a_handler_for_sigchld(contender):
    trap(
        contender,
        """
        signal.signal(signal.SIGCHLD, lambda *_: None)
        mine, writer = os.pipe2(os.O_NONBLOCK)
        signal.set_wakeup_fd(writer)
        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            try:
                os.read(mine, 100)  # one SIGCHLD at the start, of the launcher's end
            except BlockingIOError:
                pass
            lose(pool, tasks.leave, 3)
            if OURS:
                lose(pool, tasks.die, signal.SIGKILL)
                compute(pool)
        try:
            observed(f"the host gets {len(os.read(mine, 100))} SIGCHLD of workers")
        except BlockingIOError:
            pass
        """,
    )


TIMERS = {
    "ITIMER_REAL": ("SIGALRM", "REAL"),
    "ITIMER_VIRTUAL": ("SIGVTALRM", "VIRTUAL"),
    "ITIMER_PROF": ("SIGPROF", "PROF"),
}


@pytest.mark.case(SECTION, "an interval timer interrupts the host every millisecond", ways="both")
@pytest.mark.parametrize("timer", TIMERS)
def test_interval_timers(contender, timer):
    number, _ = TIMERS[timer]
    told, left = trap(
        contender,
        f"""
        rung = 0
        def ring(*_):
            global rung
            rung += 1
        signal.signal(signal.{number}, ring)
        signal.setitimer(signal.{timer}, 0.001, 0.001)
        use()
        with ProcessPoolExecutor(2) as pool:
            tell(result(pool.submit(signal.getitimer, signal.{timer})))
        while not rung:  # two of the timers count only while the host computes
            pass
        tell(signal.setitimer(signal.{timer}, 0))
        """,
    )
    expect(told == [0.0, 0.0], "the timer runs in workers, too", told)
    expect(left[1] == 0.001, "the host's timer is another one", left)


@pytest.mark.case(SECTION, "faulthandler.dump_traceback_later is set, as watchdogs do", ways="both")
def test_a_watchdog(contender, tmp_path):
    """The host's watchdog belongs to the host: workers that run for longer are not ended by it."""
    trap(
        contender,
        f"""
        import faulthandler
        file = open({str(tmp_path / "stacks")!r}, "w")
        with ProcessPoolExecutor(2) as pool:
            faulthandler.dump_traceback_later(0.5, repeat=True, exit=False, file=file)
            started = result(pool.submit(tasks.pid))
            futures = [pool.submit(tasks.sleep, 0.8) for _ in range(2)]
            for future in futures:
                result(future)
            faulthandler.cancel_dump_traceback_later()
        dumped = open({str(tmp_path / "stacks")!r}).read()
        expect("Timeout (" in dumped, "the host's watchdog does not bark any more")
        expect("worker" not in dumped and "run_task" not in dumped, "workers bark, too", dumped)
        use()
        """,
    )
