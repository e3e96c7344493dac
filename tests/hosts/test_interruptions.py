"""What interrupts a host, or looks over its shoulder: handlers that raise, other threads, debuggers and profilers."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.hosts.observing import expect
from tests.hosts.trapping import trap

SECTION = "Interruptions of the host"

RAISING = """
        class Overdue(Exception):
            pass

        def raise_it(*_):
            raise Overdue

        signal.signal(signal.SIGALRM, raise_it)
"""

# ---- handlers that raise ----------------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "a SIGALRM handler raises TimeoutError while the host waits for a result", ways="both")
def test_a_handler_that_raises_while_a_result_is_awaited(contender):
    trap(
        contender,
        RAISING
        + """
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
        RAISING
        + """
        import logging, random
        from concurrent.futures.process import BrokenProcessPool
        logging.disable(logging.CRITICAL)
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
                except (BrokenProcessPool, Overdue):  # raised while the call was pickled: it is the future's
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
        seconds=50.0 if contender != "standard" else 30.0,
        noise=True,  # if it raises in a finalizer, Python says so and goes on
    )


@pytest.mark.case(SECTION, "a SIGALRM handler raises while the first submit starts the pool", ways="both")
def test_a_handler_that_raises_during_the_start(contender):
    (raised,) = trap(
        contender,
        RAISING
        + """
        import logging
        from concurrent.futures.process import BrokenProcessPool
        logging.disable(logging.CRITICAL)
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
                except (BrokenProcessPool, Overdue):  # raised while the call was pickled: it is the future's
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
        noise=True,
    )
    expect(raised >= 5, "the handler did not raise")


# ---- threads and tracing ----------------------------------------------------------------------------------------


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
@pytest.mark.case(
    SECTION, "a tool of sys.monitoring's stops wherever a certain function is run, as at a breakpoint", ways="both"
)
def test_monitoring_that_blocks_in_other_processes(contender):
    trap(
        contender,
        """
        me = os.getpid()
        def look(code, line):
            while code.co_name == "double" and os.getpid() != me:
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
