"""asyncio: `run_in_executor` beside everything that an event loop does with signals, children and cancellation."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap

import pytest

from tests.conditions import marked
from tests.hosts.observing import Observed, expect, expect_nothing_left, host, python, run, run_clean, within

SECTION = "asyncio"

PRELUDE = """
import asyncio, os, signal, sys, threading, warnings
from tests.hosts.programs import tasks
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.event_loop import ask, crash, doubles
"""


def script(code, *arguments, flags=()):
    return python(PRELUDE + textwrap.dedent(code), *arguments, flags=flags)


# ---- children of the loop's own ----------------------------------------------------------------------------

WATCHERS = [
    "ThreadedChildWatcher", "SafeChildWatcher", "FastChildWatcher", "MultiLoopChildWatcher", "PidfdChildWatcher",
]  # fmt: skip

BESIDE_CHILDREN = """
async def child(code):
    command = ["sh", "-c", f"read line; exit {code}"]
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)
    process.stdin.write(b"leave\\n")  # not before the watcher knows of it
    return await process.wait()

async def children(rounds):
    for _ in range(rounds):
        assert await asyncio.gather(*(child(code) for code in range(1, width + 1))) == list(range(1, width + 1))

async def main(pool):
    await doubles(pool)
    running = asyncio.create_task(children(5))
    for _ in range(3):
        pool = await crash(pool)
    await running
    await children(1)
    pool.shutdown()

pool = ProcessPoolExecutor(2)
order, watcher = sys.argv[1:]
if order == "pool first":
    assert pool.submit(tasks.double, 4).result() == 8
if watcher:
    warnings.simplefilter("ignore", DeprecationWarning)
    asyncio.set_child_watcher(getattr(asyncio, watcher)())
# This one's signal handler may interrupt itself, and then takes one child's status twice, without any pool.
width = 1 if watcher == "MultiLoopChildWatcher" else 6
asyncio.run(main(pool))
"""


@pytest.mark.costly_table
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers any more")
@pytest.mark.case(SECTION, "pool workers crash beside subprocesses of the loop's, under each child watcher")
@pytest.mark.parametrize("watcher", WATCHERS)
@pytest.mark.parametrize("order", ["pool first", "watcher first"])
def test_child_watchers(contender, watcher, order):
    run_clean(contender, script(BESIDE_CHILDREN, order, watcher), seconds=15)


@pytest.mark.case(SECTION, "pool workers crash beside subprocesses of the loop's")
@pytest.mark.parametrize("order", ["pool first", "loop first"])
def test_subprocesses(contender, order):
    run_clean(contender, script(BESIDE_CHILDREN, order, ""), seconds=15)


@pytest.mark.case(SECTION, "a subprocess reads from the loop until the end of its input; the pool starts meanwhile")
def test_the_end_of_a_subprocess_s_input(contender):
    observed = run_clean(
        contender,
        script("""
        async def main():
            with ProcessPoolExecutor(2) as pool:
                process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
                await doubles(pool)
                process.stdin.close()
                try:
                    async with asyncio.timeout(3):
                        await process.wait()
                except TimeoutError:
                    print("the subprocess never sees the end of its input")
                    process.kill()
                    await process.wait()

        asyncio.run(main())
        """),
    )
    expect(not observed, observed)


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="there are no child watchers any more")
def test_a_start_beside_the_loop_is_all_that_a_watcher_of_every_child_sees():
    """FastChildWatcher runs waitpid(-1): of a pool that another thread starts it may find the launcher, no worker."""
    done = run(
        "spawn",
        script(
            """
            async def child(code):
                return await (await asyncio.create_subprocess_exec("sh", "-c", f"exit {code}")).wait()

            async def main():
                for number in range(5):
                    with ProcessPoolExecutor(2) as pool:
                        codes = asyncio.gather(*(child(code) for code in range(6)))
                        result = await asyncio.to_thread(lambda: pool.submit(tasks.double, number).result())
                        assert result == 2 * number
                        assert await codes == list(range(6))
                        await crash(pool)

            warnings.simplefilter("ignore", DeprecationWarning)
            asyncio.set_child_watcher(asyncio.FastChildWatcher())
            asyncio.run(main())
            """
        ),
    )
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert [line for line in said if not re.fullmatch(r"Caught subprocess .* unknown pid: \d+ -> 0", line)] == []
    assert len(said) <= 5


@pytest.mark.case(SECTION, "the program watches SIGCHLD with loop.add_signal_handler; pool workers crash")
def test_a_sigchld_handler_in_the_loop(contender):
    observed = run_clean(
        contender,
        script("""
        async def main():
            seen = []
            asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, seen.append, "seen")
            pool = ProcessPoolExecutor(2)
            await doubles(pool)
            seen.clear()  # what the start of the pool may have caused
            for _ in range(3):
                pool = await crash(pool)
            pool.shutdown()
            await asyncio.sleep(0.1)
            if seen:
                print("the loop's handler of SIGCHLD is called")

        asyncio.run(main())
        """),
    )
    expect(not observed, observed)


# ---- signals -----------------------------------------------------------------------------------------------


@pytest.mark.case(SECTION, "SIGTERM is sent to a pool worker; the program handles it with loop.add_signal_handler")
def test_sigterm_to_a_worker(contender):
    observed = run_clean(
        contender,
        script("""
        from pidfdpool.pidfd import Pidfd

        async def main():
            seen = []
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, seen.append, "seen")
            with ProcessPoolExecutor(1) as pool:
                await doubles(pool)
                with Pidfd.open(await ask(pool, tasks.pid)) as worker:
                    worker.send_signal(signal.SIGTERM)
                    died = await asyncio.to_thread(worker.wait, 2)
                if seen:
                    print("the loop's own handler of SIGTERM is called")
                elif not died:
                    print("the pool worker ignores SIGTERM")
                else:
                    await doubles(pool)

        asyncio.run(main())
        """),
    )
    expect(not observed, observed)


WAITS = {
    "pool outside the loop": """
pool = ProcessPoolExecutor(2)

async def main():
    await ask(pool, tasks.touch_and_sleep, sys.argv[1], 60)

asyncio.run(main())
""",
    "with around asyncio.run": """
async def main(pool):
    await ask(pool, tasks.touch_and_sleep, sys.argv[1], 60)

with ProcessPoolExecutor(2) as pool:
    asyncio.run(main(pool))
""",
    "with in the coroutine": """
async def main():
    with ProcessPoolExecutor(2) as pool:
        await ask(pool, tasks.touch_and_sleep, sys.argv[1], 60)

asyncio.run(main())
""",
}


@pytest.mark.case(SECTION, "Ctrl-C while asyncio.run waits for a task of a minute")
@pytest.mark.parametrize("where", WAITS)
def test_ctrl_c(contender, where, tmp_path):
    env = marked("asyncio")
    begun = tmp_path / "begun"
    with host(contender, script(WAITS[where], str(begun)), env=env) as program:
        within(10, begun.exists, "the task does not begin")
        os.killpg(program.pid, signal.SIGINT)
        try:
            _, err = program.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            raise Observed("the program goes on") from None
        expect(program.returncode, "the program ends as if nothing had happened", err)
        expect("Process " not in err, "tracebacks of pool workers", err)
        expect(err.count("Traceback") <= 2, "more tracebacks than the program's own", err)
    expect_nothing_left(env)
