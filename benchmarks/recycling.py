"""What recycling costs: `python -m benchmarks.recycling [--rounds N] [--tasks N]`.

A task that leaks is run by a pool that replaces a worker when its memory grows over a limit, and by one that does
not, in turn. Printed are the throughput's ratio and the most memory that the workers had together.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import threading
import time

from benchmarks import work
from pidfdpool import PidfdPoolExecutor

WORKERS = 2
LIMIT = 60_000_000


def run(tasks: int, limit: int | None) -> tuple[float, int, int]:
    """Return tasks per second, the most bytes that all workers had together, and how many workers were replaced."""
    most = 0
    with PidfdPoolExecutor(WORKERS, max_memory_per_child=limit, preload=("benchmarks.work",)) as pool:
        for future in [pool.submit(time.sleep, 0.05) for _ in range(WORKERS)]:
            future.result()
        done = threading.Event()

        def watch() -> None:
            nonlocal most
            while not done.wait(0.02):
                most = max(most, sum(worker.rss or 0 for worker in pool.workers()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.perf_counter()
        for _ in pool.map(work.leak, range(tasks)):
            pass
        rate = tasks / (time.perf_counter() - began)
        done.set()
        watcher.join()
        return rate, most, pool.stats().deaths


def main() -> None:
    """Run both in turn and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recycling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=5000)
    options = parser.parse_args()
    ratios, with_limit, without = [], [], []
    for _ in range(options.rounds):
        without.append(run(options.tasks, None))
        with_limit.append(run(options.tasks, LIMIT))
        ratios.append(with_limit[-1][0] / without[-1][0])
    print(
        f"Python {platform.python_version()}, {WORKERS} workers, {options.tasks} tasks, medians of {options.rounds}\n"
    )
    print("| pool | tasks/s | most memory | workers replaced |\n|---|---|---|---|")
    for name, figures in (("without a limit", without), (f"max_memory_per_child={LIMIT // 10**6} MB", with_limit)):
        rate, most, deaths = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {rate:,.0f} | {most / 1e6:,.0f} MB | {deaths:.0f} |")
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"\nthroughput with recycling over without: {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    main()
