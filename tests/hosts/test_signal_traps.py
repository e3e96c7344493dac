"""Signals, children and handlers: what belongs to the whole process, and what a host may have done with it."""

from __future__ import annotations

import sys
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


# ---- handlers that raise ------------------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "a SIGALRM handler raises TimeoutError while the host waits for a result", ways="both")
def test_a_handler_that_raises_while_a_result_is_awaited(contender):
    trap(
        contender,
        """
        class Overdue(Exception):
            pass

        def raise_it(*_):
            raise Overdue

        signal.signal(signal.SIGALRM, raise_it)
        with ProcessPoolExecutor(2) as pool:
            compute(pool)
            for _ in range(5):
                future = pool.submit(tasks.sleep, 0.3)
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                try:
                    future.result(timeout=SECONDS)
                except Overdue:
                    pass
                else:
                    observed("the handler's exception does not come out of result()")
                result(future)
            compute(pool)
        use()
        """.replace("SECONDS", "trapped.SECONDS"),
    )


@pytest.mark.case(
    SECTION, "a SIGALRM handler raises at any moment in submit, result or shutdown; then a new pool", ways="both"
)
def test_a_handler_that_raises_anywhere(contender):
    """The pool goes on, or says that it is broken: it never hangs, nor keeps the next one from working."""
    trap(
        contender,
        """
        import logging, random
        from concurrent.futures.process import BrokenProcessPool

        class Overdue(Exception):
            pass

        def raise_it(*_):
            raise Overdue

        logging.disable(logging.CRITICAL)
        signal.signal(signal.SIGALRM, raise_it)
        chance = random.Random(7)
        raised = 0
        pool = ProcessPoolExecutor(2)
        result(pool.submit(tasks.double, 1))
        while raised < 60:
            futures = []
            try:
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.00002, 0.002))
                for number in range(6):
                    futures.append(pool.submit(tasks.double, number))
                for future in futures:
                    future.result(timeout=trapped.SECONDS)
            except Overdue:
                raised += 1
            except BrokenProcessPool:
                pass
            except TimeoutError:
                observed("a task hangs after a handler raised")
            except RuntimeError as error:
                # threading.Condition may have been interrupted where it does not hold its lock, and says so.
                if not isinstance(error.__context__, Overdue):
                    raise
                raised += 1
            finally:
                while True:
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0)
                        break
                    except Overdue:
                        pass
            for future in futures:
                try:
                    result(future, "a task hangs after a handler raised")
                except BrokenProcessPool:
                    pass
            try:
                compute(pool, 3)
            except BrokenProcessPool:
                pool.shutdown()
                pool = ProcessPoolExecutor(2)
        compute(pool)
        pool.shutdown()
        use()
        """,
        seconds=60.0 if contender != "standard" else 30.0,
    )


@pytest.mark.case(SECTION, "a SIGALRM handler raises while the first submit starts the pool", ways="both")
def test_a_handler_that_raises_during_the_start(contender):
    (raised,) = trap(
        contender,
        """
        import logging
        from concurrent.futures.process import BrokenProcessPool

        class Overdue(Exception):
            pass

        def raise_it(*_):
            raise Overdue

        logging.disable(logging.CRITICAL)
        signal.signal(signal.SIGALRM, raise_it)
        raised = 0
        for milliseconds in (0.3, 1, 3, 6, 12, 25, 40):
            pool = ProcessPoolExecutor(2)
            futures = []
            signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
            try:
                futures.append(pool.submit(tasks.double, 1))
                futures[0].result(timeout=trapped.SECONDS)
                time.sleep(1)
            except Overdue:
                raised += 1
            for _ in range(2):
                try:
                    futures.append(pool.submit(tasks.double, 1))
                except BrokenProcessPool:
                    pass
            for future in futures:
                try:
                    result(future, "a task hangs after a handler raised")
                except BrokenProcessPool:
                    pass
            pool.shutdown()
            if OURS:
                try:
                    os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    observed("the host has a child of ours")
                except ChildProcessError:
                    pass
        tell(raised)
        use()
        """,
    )
    expect(raised >= 5, "the handler did not raise")


# ---- the interpreter's switches -----------------------------------------------------------------------------------


@pytest.mark.case(
    SECTION, "the interval in which threads take turns is changed, while another thread computes", ways="both"
)
@pytest.mark.parametrize("seconds", [1e-6, 0.5])
def test_the_switch_interval(contender, seconds):
    trap(
        contender,
        f"""
        sys.setswitchinterval({seconds})
        over = False
        def spin():
            while not over:
                pass
        thread = threading.Thread(target=spin)
        if {seconds} < 0.1:
            thread.start()
        use()
        over = True
        if thread.ident:
            thread.join()
        expect(abs(sys.getswitchinterval() - {seconds}) < 1e-6, "the interval is another one")
        """,
    )


TRACING = {
    "sys.settrace": "sys.settrace(look)",
    "sys.setprofile": "sys.setprofile(look)",
    "threading.settrace": "threading.settrace(look)",
    "threading.setprofile": "threading.setprofile(look)",
}


@pytest.mark.case(SECTION, "a debugger's or profiler's function is called for all that runs", ways="both")
@pytest.mark.parametrize("means", TRACING)
def test_tracing(contender, means):
    trap(
        contender,
        f"""
        me = os.getpid()
        seen = set()
        def look(frame, event, argument):
            seen.add(os.getpid())
            return look
        {TRACING[means]}
        use()
        sys.settrace(None)
        sys.setprofile(None)
        expect(seen == {{me}}, "it sees nothing", seen)
        """,
    )


@pytest.mark.case(
    SECTION, "a debugger's function waits for the debugger when it is called in a forked process", ways="both"
)
@pytest.mark.parametrize("means", ["sys.settrace", "sys.setprofile"])
def test_tracing_that_blocks_in_other_processes(contender, means):
    trap(
        contender,
        f"""
        me = os.getpid()
        def look(frame, event, argument):
            while os.getpid() != me:
                time.sleep(60)
            return look
        {means}(look)
        use()
        expect({means.replace("set", "get")}() is look, "the host is not traced any more")
        {means}(None)
        """,
    )


@pytest.mark.skipif(not hasattr(sys, "monitoring"), reason="sys.monitoring is there since Python 3.12")
@pytest.mark.case(SECTION, "a monitoring tool of the host's blocks in other processes", ways="both")
def test_monitoring_that_blocks_in_other_processes(contender):
    """Events cannot be stopped for one thread, so a few come in the forked process, too: those are let pass."""
    trap(
        contender,
        """
        me = os.getpid()
        passed = 0
        def look(*_):
            global passed
            if os.getpid() != me:
                passed += 1
                while passed > 100:
                    time.sleep(60)
        tool = sys.monitoring.DEBUGGER_ID
        sys.monitoring.use_tool_id(tool, "debugger")
        sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, look)
        sys.monitoring.set_events(tool, sys.monitoring.events.LINE)
        use()
        expect(sys.monitoring.get_events(tool) == sys.monitoring.events.LINE, "the host is not monitored any more")
        sys.monitoring.set_events(tool, 0)
        """,
    )


@pytest.mark.case(SECTION, "pdb steps over a submit, and the task, in the host", ways="both")
def test_pdb(contender, tmp_path):
    """A forked process that still has the debugger's trace function would read its commands."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """\
            import os
            from tests.hosts.programs import tasks, trapped
            from tests.hosts.programs.contender import ProcessPoolExecutor

            def twice(number):
                return 2 * number

            pool = ProcessPoolExecutor(1)
            breakpoint()
            future = pool.submit(tasks.double, 21)
            value = trapped.result(future)
            pool.shutdown()
            trapped.tell(value)
            """
        )
    )
    commands = tmp_path / "commands"
    commands.write_text("next\n" * 4 + "p value\ncontinue\n")
    with open(commands) as file:
        code = f"exec(compile(open({str(program)!r}).read(), {str(program)!r}, 'exec'))"
        (value,) = trap(contender, code, stdin=file, noise=True)
    expect(value == 42, "a wrong result", value)
