"""The table of cases: what happens with the standard pool, what happens with ours. Printed, and written as a page."""

from __future__ import annotations

import datetime
import platform
import re
import shutil
import subprocess
import sys
import textwrap
from importlib import metadata
from typing import NamedTuple

WORKS = "works"


class Part(NamedTuple):
    """What one run writes of the page, under this heading; it leaves the other parts as they are."""

    title: str
    about: str
    folder: str  # whose tests are its rows
    programs: tuple[str, ...]
    packages: tuple[str, ...] = ()  # Debian's, whose versions are told, too
    standard: str = "`ProcessPoolExecutor`"  # what it is compared with


BEGINNING = """\
# Hosts

What happens to a pool, and to a swarm, in real servers, event loops and other programs. Each row of the tables is a
test. It was run beside what these programs would use otherwise.
"""

_HEAD = """\
## {part.title}

{part.about}

{date}; Linux {kernel}; Python {python}; {versions}.
"""

# In the order of the page; of two folders that fit a test, the last one's part has it.
PARTS = (
    Part(
        "At home in every host",
        """\
Each row is a test in `tests/hosts/` that starts the real program and talks to it as its user would, once with
`concurrent.futures.ProcessPoolExecutor` and once with pidfdpool; only the import differs. What is said is what was
observed in this one run. `tox -e hosts -- --page docs/hosts.md` runs all of it and writes this part of the page.""",
        "tests/hosts/",
        (
            *("gunicorn", "uWSGI", "uvicorn", "gevent", "celery", "Twisted", "tornado", "ipykernel", "ipython"),
            *("Flask", "Django", "fastapi", "numpy"),
        ),
    ),
    Part(
        "Swarms in hosts",
        """\
The same for a [swarm](swarm.md). What it is compared with is what a program writes by hand: processes of
`multiprocessing`, and a thread that starts those again that are not alive
(`tests/hosts/programs/swarms/contender.py`). The tests are in `tests/hosts/swarms/`, and are run as those above.""",
        "tests/hosts/swarms/",
        ("gunicorn", "gevent", "celery", "Twisted", "ipykernel"),
        standard="`multiprocessing.Process`, by hand",
    ),
    Part(
        "At home in far hosts",
        """\
The same for programs that Debian packages, some of which have Python inside, and for more servers, queues and tools.
The tests are in `tests/hosts/far/`; `tests/hosts/far/install` installs the packages. `tox -e far -- --page
docs/hosts.md` does both, and writes this part of the page.""",
        "tests/hosts/far/",
        (
            *("hypercorn", "granian", "waitress", "sanic", "daphne", "CherryPy", "rq", "dramatiq", "huey", "luigi"),
            *("Scrapy", "locust", "ansible-core"),
        ),
        (
            *("apache2-bin", "libapache2-mod-wsgi-py3", "postgresql-15", "gdb", "vim-nox", "weechat-headless"),
            *("python3-pyqt5", "python3-pyside2.qtcore", "python3-tk", "python3-gi", "redis-server"),
            *("openmpi-bin", "python3-mpi4py", "bubblewrap", "firejail", "runit"),
        ),
    ),
)


def replaced(page: str, part: str) -> str:
    """Return the page with this part in the place of the one that has the same title, or that is to stand there."""
    texts = [*re.split("^(?=## )", page, flags=re.MULTILINE), part]
    parts = {text.partition("\n")[0]: text.rstrip("\n") for text in texts}
    titles = [f"## {known.title}" for known in PARTS]
    return "\n\n".join([BEGINNING.rstrip("\n"), *(parts[title] for title in titles if title in parts)]) + "\n"


def first_line(error: BaseException) -> str:
    """Return what a column says of a case that failed with this error."""
    text = str(error).strip() or type(error).__name__
    line = text.splitlines()[0]
    return line if isinstance(error, AssertionError) else f"{type(error).__name__}: {line}"


class Row:
    """One case, as far as it has been run."""

    def __init__(self) -> None:
        self.standard: str | None = None
        self.ours: str | None = None
        self.note: str | None = None

    def columns(self) -> tuple[str, str]:
        standard = self.standard or "not run"
        if self.note is not None:
            standard = f"{standard}; {self.note}"
        return standard, self.ours or "not run"


class Rows:
    """All of them, in the order of the files, whatever order they were run in."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}

    def __bool__(self) -> bool:
        return bool(self._rows)

    def add(
        self, *, place: str, section: str, title: str, standard: bool, when: str, seen: str | None, left: int
    ) -> None:
        """Note what was seen in one phase of a test, and how many processes were left after it.

        place: where the test is written. seen: None: nothing wrong. What went wrong first is what counts.
        """
        row = self._rows.setdefault((place, section, title), Row())
        before = row.standard if standard else row.ours
        if before in (None, WORKS) and (seen is not None or when == "call"):
            said = WORKS if seen is None else seen
            if standard:
                row.standard = said
            else:
                row.ours = said
        if left:
            row.note = f"leaves {left} process{'es' if left > 1 else ''}"

    def as_text(self) -> str:
        """Return the table for a terminal."""
        lines = []
        for section, rows in _sections(self._rows).items():
            lines.append(f"\n{section}")
            for title, standard, ours in rows:
                lines += textwrap.wrap(title, 110, initial_indent="  ", subsequent_indent="      ")
                lines.append(f"      standard:  {standard}")
                lines.append(f"      pidfdpool: {ours}")
        return "\n".join(lines) + "\n"

    def as_page(self, before: str = "") -> str:
        """Return the page, in Markdown, with what this run has seen. before: the page as it was."""
        for part in PARTS:
            rows = {key: row for key, row in self._rows.items() if _part_of(key[0]) is part}
            if rows:
                before = replaced(before, _as_text_of(part, _sections(rows)))
        return before


def _sections(rows: dict[tuple[str, str, str], Row]) -> dict[str, list[tuple[str, str, str]]]:
    found: dict[str, list[tuple[str, str, str]]] = {}
    for (_, section, title), row in sorted(rows.items(), key=_place):
        found.setdefault(section, []).append((title, *row.columns()))
    return found


def _part_of(place: str) -> Part:
    return [part for part in PARTS if place.startswith(part.folder)][-1]


def _as_text_of(part: Part, sections: dict[str, list[tuple[str, str, str]]]) -> str:
    versions = [f"{name} {metadata.version(name)}" for name in part.programs if _installed(name)]
    text = [
        _HEAD.format(
            part=part,
            date=datetime.date.today().isoformat(),
            kernel=platform.release().partition("-")[0],
            python=platform.python_version(),
            versions=", ".join([*versions, *_debian(part.packages)]),
        )
    ]
    for section, rows in sections.items():
        text.append(f"\n### {section}\n\n| case | {part.standard} | pidfdpool |\n|---|---|---|\n")
        text += [f"| {' | '.join(_cell(text) for text in row)} |\n" for row in rows]
    return "".join(text)


def _debian(packages: tuple[str, ...]) -> list[str]:
    """Return those of Debian's packages that are installed, with their versions."""
    if not packages or shutil.which("dpkg-query") is None:
        return []
    command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n", *packages]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    known = dict(line.split(" ", 1) for line in lines if not line.endswith(" "))
    return [f"{name} {re.sub('^[0-9]+:|[-+].*$', '', known[name])}" for name in packages if name in known]


def _place(item: tuple[tuple[str, str, str], Row]) -> tuple[str, str, str]:
    return item[0]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        print(f"{name} is not installed", file=sys.stderr)
        return False
    return True
