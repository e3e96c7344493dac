"""What `preload` is worth: `python -m benchmarks.preload [--megabytes N] [--recycled N]`.

Read-only data is loaded once in the template, or by an initializer in each worker. Then workers are recycled, one
task each. Printed are the time to the first result of all workers, the time per replacement, and the memory that the
workers have together (PSS: shared pages are divided among those that share them; smaps_rollup of proc(5)).
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from concurrent.futures import wait

from benchmarks import work
from pidfdpool import PidfdPoolExecutor

WORKERS = 8


def pss(pids: list[int]) -> int:
    """Return the proportional set size of processes, in bytes."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) * 1024
    return total


def measure(recycled: int, preloaded: bool) -> tuple[float, float, int]:
    """Return seconds to the first results, seconds per recycled worker, and bytes of PSS with the template."""
    began = time.perf_counter()
    way = {"preload": work.load} if preloaded else {"initializer": work.load}
    with PidfdPoolExecutor(WORKERS, **way) as pool:
        wait([pool.submit(work.look, 0.2) for _ in range(WORKERS)])
        first = time.perf_counter() - began
        template = pool.submit(os.getppid).result()
        memory = pss([template, *(worker.pid for worker in pool.workers() if worker.pid)])
    with PidfdPoolExecutor(1, max_tasks_per_child=1, **way) as pool:
        pool.submit(work.look, 0).result()
        began = time.perf_counter()
        for _ in range(recycled):
            pool.submit(work.look, 0).result()
        return first, (time.perf_counter() - began) / recycled, memory


def main() -> None:
    """Measure both ways, in turn, and print the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preload", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--recycled", type=int, default=100, help="workers to recycle with the preload")
    parser.add_argument("--recycled-without", type=int, default=3, help="and without it, where each loads the data")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["PRELOAD_MEGABYTES"] = str(options.megabytes)
    figures: dict[bool, list[tuple[float, float, int]]] = {True: [], False: []}
    for _ in range(options.rounds):
        figures[True].append(measure(options.recycled, True))
        figures[False].append(measure(options.recycled_without, False))
    print(f"Python {platform.python_version()}, {options.megabytes} MB, {WORKERS} workers, {options.rounds} rounds\n")
    print("| loaded by | first results of all workers | per recycled worker | memory (PSS) |\n|---|---|---|---|")
    for name, key in (("preload, in the template", True), ("initializer, in each worker", False)):
        first, each, memory = (statistics.median(column) for column in zip(*figures[key], strict=True))
        print(f"| {name} | {first:,.2f} s | {each * 1e3:,.1f} ms | {memory / 1e6:,.0f} MB |")


if __name__ == "__main__":
    main()
