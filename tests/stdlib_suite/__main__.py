"""Prints, as a Markdown table, what became of each test: `python -m tests.stdlib_suite [--against stdlib]`."""

from __future__ import annotations

import argparse
import platform
import sys

from tests.stdlib_suite.expected import METHODS, difference, start_method
from tests.stdlib_suite.groups import list_all, run_all
from tests.stdlib_suite.locate import VARIABLE, find_suite


def main() -> int:
    """Run the whole suite; the exit code says whether each test that must pass has passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.stdlib_suite", description=__doc__)
    parser.add_argument("--against", choices=("ours", "stdlib"), default="ours")
    against = parser.parse_args().against
    suite = find_suite()
    if suite is None:
        print(f"no Python here has test_concurrent_futures; name one with {VARIABLE}", file=sys.stderr)
        return 2
    table: dict[tuple[str, str], dict[str, str]] = {}
    reasons: dict[tuple[str, str], list[str]] = {}
    wrong = 0
    outcomes = run_all(suite, against)
    for module, group, test in list_all(suite):
        method = start_method(group)
        kind = group.split(method.capitalize(), 1)[1]
        outcome = outcomes[module, group].get(test)
        word = "not begun" if outcome is None else outcome.word
        differs = difference(group, test) if against == "ours" else None
        wrong += word not in ("passed", "skipped") and (differs is None or word != "failed")
        table.setdefault((kind, test), {})[method] = word
        if differs is not None:
            reasons.setdefault((kind, test), []).append(differs.reason)
    print(f"{against} on Python {platform.python_version()}\n")
    print("| class | test | fork | forkserver | spawn | why it differs |\n|---|---|---|---|---|---|")
    for (kind, test), row in table.items():
        cells = [row.get(method, "") for method in METHODS]
        why = "; or ".join(dict.fromkeys(reasons.get((kind, test), [])))
        print(f"| {kind} | {test} | {' | '.join(cells)} | {why} |")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
