"""Times ours and the standard pool in turn: `python -m benchmarks [--rounds N] [--method METHOD] [CASE...]`."""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
from concurrent.futures import ProcessPoolExecutor

from benchmarks.cases import CASES, WORKERS
from pidfdpool import PidfdPoolExecutor


def main() -> None:
    """Time each case on both pools in turn, A B A B, and print a Markdown table of the medians."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="a part of the name of a case; all without any")
    parser.add_argument("--rounds", type=int, default=7, help="how often each pool is timed (default: 7)")
    parser.add_argument("--method", choices=("fork", "spawn", "forkserver"), default="spawn", help="the start method")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, not {options.rounds}")
    context = multiprocessing.get_context(options.method)
    pools = {
        "standard": lambda: ProcessPoolExecutor(WORKERS, mp_context=context),
        "pidfdpool": lambda: PidfdPoolExecutor(WORKERS, mp_context=context),
    }
    print(f"Python {platform.python_version()}, {options.method}, {WORKERS} workers, medians of {options.rounds}\n")
    print("| case | unit | standard | pidfdpool | times as good |\n|---|---|---|---|---|")
    for case in CASES:
        if options.cases and not any(part in case.name for part in options.cases):
            continue
        figures: dict[str, list[float]] = {name: [] for name in pools}
        for _ in range(options.rounds):
            for name, new in pools.items():
                figures[name].append(case.measure(new))
        theirs, ours = (statistics.median(figures[name]) for name in pools)
        ratio = ours / theirs if case.is_rate else theirs / ours
        print(f"| {case.name} | {case.unit} | {theirs:,.0f} | {ours:,.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
