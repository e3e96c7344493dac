"""asyncio's ways to wait, to give up waiting, and to end, with calls that run in a pool."""

from __future__ import annotations

import pytest

from tests.hosts.observing import expect, run_clean
from tests.hosts.test_asyncio import SECTION, script


def value(contender, code, *arguments, **options):
    """Return what the program says, which must be all that it says."""
    return run_clean(contender, script(code, *arguments, **options)).strip()


@pytest.mark.case(SECTION, "asyncio.timeout ends a task group; its calls that have not begun do not run")
def test_a_timeout_around_a_task_group(contender, tmp_path):
    said = value(
        contender,
        """
        async def call(pool, function, *arguments):
            return await ask(pool, function, *arguments)

        async def main():
            with ProcessPoolExecutor(1) as pool:
                await doubles(pool)
                try:
                    async with asyncio.timeout(0.2), asyncio.TaskGroup() as group:
                        group.create_task(call(pool, tasks.sleep, 1.0))
                        for name in range(5):
                            group.create_task(call(pool, tasks.touch_and_sleep, f"{sys.argv[1]}/{name}", 0))
                except TimeoutError:
                    pass
                await doubles(pool)
            print(len(os.listdir(sys.argv[1])))

        asyncio.run(main())
        """,
        str(tmp_path),
    )
    expect(said == "0", f"{said} of 5 cancelled calls run nevertheless")


@pytest.mark.case(SECTION, "in a task group one call raises, then one crashes in another group; the pool goes on")
def test_task_groups(contender):
    observed = value(
        contender,
        """
        from concurrent.futures.process import BrokenProcessPool

        async def call(pool, function, *arguments):
            return await ask(pool, function, *arguments)

        async def group(pool, function, argument, kind):
            failed = 0
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(call(pool, function, argument))
                    for number in range(5):
                        group.create_task(call(pool, tasks.sleep, 0.1))
            except* kind as errors:
                failed = len(errors.exceptions)
            return failed

        async def main():
            with ProcessPoolExecutor(2) as pool:
                assert await group(pool, tasks.fail, "so", ValueError) == 1
                await doubles(pool)
                failed = await group(pool, tasks.leave, 3, BrokenProcessPool)
                if failed > 1:
                    print(f"{failed} calls of the group fail, not one")
                else:
                    await doubles(pool)

        asyncio.run(main())
        """,
    )
    expect(not observed, observed)


@pytest.mark.case(SECTION, "asyncio.run(debug=True), and python -X dev")
@pytest.mark.parametrize("flags", ["", "-X dev"])
def test_debug_mode(contender, flags):
    value(
        contender,
        """
        async def main():
            # The first call starts processes, which may well take what debug mode calls slow.
            asyncio.get_running_loop().slow_callback_duration = 30
            with ProcessPoolExecutor(2) as pool:
                await doubles(pool)
                results = [ask(pool, tasks.sleep, 0.05) for _ in range(4)]
                results[3].cancel()
                done = await asyncio.gather(*results, return_exceptions=True)
                assert isinstance(done[3], asyncio.CancelledError) and all(done[:3])
                await doubles(pool)

        asyncio.run(main(), debug=True)
        """,
        flags=flags.split(),
    )


@pytest.mark.case(SECTION, "asyncio.wrap_future: awaited, cancelled, and awaited with others by asyncio.wait")
def test_wrapped_futures(contender):
    value(
        contender,
        """
        async def main():
            with ProcessPoolExecutor(1) as pool:
                assert await asyncio.wrap_future(pool.submit(tasks.double, 2)) == 4
                busy = pool.submit(tasks.sleep, 0.3)
                inner = [pool.submit(tasks.double, number) for number in range(8)]
                wrapped = [asyncio.wrap_future(future) for future in inner]
                wrapped[-1].cancel()
                await asyncio.sleep(0)
                assert inner[-1].cancelled()  # it was far from running
                done, pending = await asyncio.wait(wrapped[:-1])
                assert not pending and sorted(f.result() for f in done) == list(range(0, 14, 2))
                assert busy.result() == await asyncio.wrap_future(pool.submit(tasks.pid))

        asyncio.run(main())
        """,
    )


@pytest.mark.case(SECTION, "the loop ends while a call runs; the next loop uses the same pool")
def test_a_loop_that_ends(contender):
    value(
        contender,
        """
        async def leave(pool):
            await doubles(pool)
            ask(pool, tasks.sleep, 0.5)

        pool = ProcessPoolExecutor(1)
        for _ in range(2):
            asyncio.run(leave(pool))
        asyncio.run(doubles(pool))
        """,
    )


@pytest.mark.case(
    SECTION, "the loop is closed while a call runs that nobody cancels; the next loop uses the same pool"
)
def test_a_loop_that_is_closed(contender):
    value(
        contender,
        """
        async def wrap(inner):
            return asyncio.wrap_future(inner)

        pool = ProcessPoolExecutor(1)
        loop = asyncio.new_event_loop()
        inner = pool.submit(tasks.sleep, 0.3)
        outer = loop.run_until_complete(wrap(inner))
        loop.close()
        inner.result()
        asyncio.run(doubles(pool))
        pool.shutdown()
        assert not outer.done()
        """,
    )


PLACES = {
    "before the loop": """
async def main(pool):
    for _ in range(3):
        pool = await crash(pool)
    pool.shutdown()

pool = ProcessPoolExecutor(2)
assert pool.submit(tasks.double, 2).result() == 4
asyncio.run(main(pool))
""",
    "in the loop": """
async def main():
    pool = ProcessPoolExecutor(2)
    for _ in range(3):
        pool = await crash(pool)
    pool.shutdown()

asyncio.run(main())
""",
    "in a thread beside": """
def start():
    pool = ProcessPoolExecutor(2)
    assert pool.submit(tasks.double, 2).result() == 4
    return pool

async def main():
    pool = await asyncio.to_thread(start)
    for _ in range(3):
        pool = await crash(pool)
    pool.shutdown()

asyncio.run(main())
""",
    "in two loops in two threads": """
async def main(number):
    pool = shared
    for _ in range(3):
        await doubles(pool)
    results.append(number)

shared = ProcessPoolExecutor(2)
results = []
threads = [threading.Thread(target=lambda n=n: asyncio.run(main(n))) for n in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sorted(results) == [0, 1]
""",
}


@pytest.mark.case(SECTION, "where the pool is made")
@pytest.mark.parametrize("where", PLACES)
def test_where_the_pool_is_made(contender, where):
    value(contender, PLACES[where])


@pytest.mark.case(SECTION, "the loop stays responsive while the pool works and a worker crashes")
def test_a_responsive_loop(contender):
    value(
        contender,
        """
        async def tick():
            beats = 0
            while True:
                await asyncio.sleep(0.01)
                beats += 1
                counted[0] = beats

        counted = [0]

        async def main():
            pool = ProcessPoolExecutor(2)
            await doubles(pool)
            ticking = asyncio.create_task(tick())
            pool = await crash(pool)
            before = counted[0]
            await ask(pool, tasks.sleep, 1.0)
            assert counted[0] - before >= 10, counted[0] - before
            ticking.cancel()
            pool.shutdown()

        asyncio.run(main())
        """,
    )


def test_cancellation_stops_what_runs_if_asked_to():
    """With cancel_kills the cancellation of an asyncio task ends the work itself, under a timeout as well."""
    said = run_clean(
        "spawn",
        script(
            """
            from pidfdpool.pidfd import Pidfd

            async def main():
                with ProcessPoolExecutor(1) as pool:
                    await doubles(pool)
                    with Pidfd.open(await ask(pool, tasks.pid)) as worker:
                        try:
                            async with asyncio.timeout(0.2):
                                await ask(pool.options(cancel_kills=True), tasks.sleep, 60)
                        except TimeoutError:
                            print(await asyncio.to_thread(worker.wait, 10))
                    await doubles(pool)

            asyncio.run(main())
            """
        ),
    )
    assert said == "True\n"
