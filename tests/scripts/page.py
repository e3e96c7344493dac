"""Makes the page of the scripts from what several runs saw: `python -m tests.scripts.page FILE-OR-FOLDER...`.

It is printed, or written to the file that `--page` names. The exit code is 1 if a script works with the standard pool
in both ways, on some version of Python, and not with ours.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.scripts import rows
from tests.scripts.kind import Kind
from tests.scripts.kinds import SECTIONS
from tests.scripts.running import WORKS

STANDARD = ("standard-fork", "standard-spawn")
OURS = "ours"
POOLS = (*STANDARD, OURS)
LONGEST = 64

_HEAD = """\
# What scripts define and use

Each row is a small script. It defines or keeps something, uses it in [tasks](glossary.md#task), and prints what comes
of it. It is run with `concurrent.futures.ProcessPoolExecutor`, with fork and with spawn, and with pidfdpool as it is
by default; only the import and `mp_context` differ. "works" means: the right output, exit code 0, nothing on standard
error, and no process left. Everything else is what was observed. A number such as 3.12+ is the version of Python that
brought the syntax.

The scripts are in `tests/scripts/kinds/`. `tox -m scripts` runs them on each version of Python, and writes this page.

{date}; Linux {kernel}; {libraries}.

| Python | scripts | standard pool, fork | standard pool, spawn | pidfdpool |
|---|---|---|---|---|
{counts}
"""
_SECTION = """
## {title}

| what | standard pool, fork | standard pool, spawn | pidfdpool |
|---|---|---|---|
"""


def main(arguments: list[str] | None = None) -> int:
    """Read what runs have written, and make the page of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.scripts.page", description=__doc__)
    parser.add_argument("--page", help="write it to this file")
    parser.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    runs = sorted((rows.read(str(path)) for path in _files(options.files)), key=lambda run: run.minor)
    page = as_page(runs)
    if options.page is None:
        print(page, end="")
    else:
        Path(options.page).write_text(page)
    wrong = list(broken_promises(runs))
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        yield from sorted(path.glob("*.json")) if path.is_dir() else [path]


def as_page(runs: list[rows.Run]) -> str:
    """Return the page, in Markdown. runs: one for each version of Python, in their order."""
    names = sorted({name for run in runs for name in run.libraries}, key=str.lower)
    parts = [
        _HEAD.format(
            date=datetime.date.today().isoformat(),
            kernel=" and ".join(sorted({run.kernel for run in runs})),
            libraries=", ".join(f"{name} {_versions(name, runs)}" for name in names),
            counts="\n".join(_counts(run) for run in runs),
        )
    ]
    for section, kinds in SECTIONS.items():
        parts.append(_SECTION.format(title=section))
        parts += [_row(section, kind, runs) for kind in kinds if _was_run(section, kind, runs)]
    return "".join(parts)


def broken_promises(runs: list[rows.Run]) -> Iterator[str]:
    """Yield what works with the standard pool in both ways and not with ours, and on which version."""
    for run in runs:
        for section, kind in _all_kinds():
            seen = {name: run.seen.get((section, kind.title, name)) for name in POOLS}
            if seen[OURS] not in (None, WORKS) and all(seen[name] == WORKS for name in STANDARD):
                yield f"{run.python}: {section}: {kind.title}: {seen[OURS]}"


def cell(seen: dict[str, str | None]) -> str:
    """Return what a cell says. seen: by version of Python, what was seen there; None: it was not run.

    Errors of one class count as one, told in the words of the newest version: words change more often than facts.
    """
    versions: dict[str, list[str]] = {}
    words: dict[str, str] = {}
    for version, said in seen.items():
        word = "not run" if said is None else shortened(said)
        kind = word.partition(":")[0]
        words[kind] = word
        versions.setdefault(kind, []).append(version)
    if len(words) == 1:
        return next(iter(words.values()))
    rest = [f"{', '.join(versions[kind])}: {word}" for kind, word in words.items() if kind != WORKS]
    return "; ".join([WORKS, *rest] if WORKS in words else rest)


def shortened(said: str) -> str:
    """Return the beginning of what was seen, without what differs from run to run."""
    said = re.sub(r" at 0x[0-9a-f]+", "", said)
    said = re.sub(r" \((?:/|<class )[^)]*\)", "", said)
    said = re.sub(r"^(?:\w+\.)+(?=[A-Z])", "", said)
    return said if len(said) <= LONGEST else f"{said[: LONGEST - 3].rstrip()}..."


def _row(section: str, kind: Kind, runs: list[rows.Run]) -> str:
    title = kind.title if kind.since == (3, 11) else f"{kind.title} ({_dotted(kind.since)}+)"
    cells = [
        cell(
            {_dotted(run.minor): run.seen.get((section, kind.title, name)) for run in runs if run.minor >= kind.since}
        )
        for name in POOLS
    ]
    if kind.reason and cells[-1] != WORKS:
        cells[-1] += f" ({kind.reason})"
    return f"| {' | '.join(_escaped(text) for text in (title, *cells))} |\n"


def _was_run(section: str, kind: Kind, runs: list[rows.Run]) -> bool:
    return any((section, kind.title, name) in run.seen for run in runs for name in POOLS)


def _counts(run: rows.Run) -> str:
    """Return the row of the table of counts: how many scripts were run, and how many work with each pool."""
    seen = {name: [run.seen.get((section, kind.title, name)) for section, kind in _all_kinds()] for name in POOLS}
    total = max(sum(one is not None for one in column) for column in seen.values())
    return f"| {run.python} | {total} | {' | '.join(str(column.count(WORKS)) for column in seen.values())} |"


def _all_kinds() -> Iterator[tuple[str, Kind]]:
    for section, kinds in SECTIONS.items():
        for kind in kinds:
            yield section, kind


def _versions(name: str, runs: list[rows.Run]) -> str:
    """Return a library's version; where it differs or is not there on some Python, that is told."""
    found = {_dotted(run.minor): run.libraries.get(name) for run in runs}
    if len(set(found.values())) == 1:
        return str(next(iter(found.values())))
    return "/".join(version or f"none on {python}" for python, version in found.items())


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("__", "\\_\\_")


if __name__ == "__main__":
    sys.exit(main())
