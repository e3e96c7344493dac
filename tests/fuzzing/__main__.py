"""Run the fuzzer: `python -m tests.fuzzing [--count N] [--seed S] [--target NAME]`. A seed repeats a failure."""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
import traceback

from tests.fuzzing.targets import TARGETS

_ROOM = 512 << 20  # bytes of address space for a run: if the decoder believes a length, it fails at once


def limit_memory() -> None:
    """Limit this process's address space: enough for what is decoded, not for an absurd length."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM, resource.getrlimit(resource.RLIMIT_AS)[1]))


def run(name: str, seed: int, count: int) -> int:
    """Fuzz one target with so many inputs; return their bytes. Each input has a seed of its own."""
    total = 0
    for number in range(seed, seed + count):
        try:
            total += TARGETS[name](random.Random(number))
        except BaseException as error:
            raise AssertionError(f"{name}, seed {number}: {type(error).__name__}: {error}") from error
    return total


def main() -> int:
    """Run the fuzzer as the command line says; return 1 if a target failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="inputs, all targets together")
    parser.add_argument("--seed", type=int, default=None, help="of the first input; default: drawn, and printed")
    parser.add_argument("--target", choices=sorted(TARGETS), default=None, help="this one only")
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    names = [options.target] if options.target else list(TARGETS)
    each = max(1, options.count // len(names))
    limit_memory()
    failed = 0
    for name in names:
        began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            size = run(name, seed, each)
        except AssertionError:
            traceback.print_exc()
            failed = 1
            continue
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        spent = time.process_time() - began
        told = f"{each} inputs from seed {seed}, {size / 1e6:.0f} MB, {spent:.0f} s, peak memory +{grown >> 10} MB"
        print(f"{name:10} {told}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
