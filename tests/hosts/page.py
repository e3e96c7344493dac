"""The table of cases: what happens with the standard pool, what happens with ours. Printed, and written as a page."""

from __future__ import annotations

import datetime
import platform
import sys
import textwrap
from importlib import metadata

PROGRAMS = (
    "gunicorn", "uWSGI", "uvicorn", "gevent", "celery", "Twisted", "tornado", "ipykernel", "ipython", "Flask",
    "Django", "fastapi", "numpy",
)  # fmt: skip
WORKS = "works"

_HEAD = """\
# At home in every host

Each row is a test in `tests/hosts/` that starts the real program and talks to it as its user would, once with
`concurrent.futures.ProcessPoolExecutor` and once with pidfdpool; only the import differs. What is said is what was
observed in this one run. `tox -e hosts -- --page docs/hosts.md` runs all of it and writes this page.

{date}; Linux {kernel}; Python {python}; {versions}.
"""


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

    def _sections(self) -> dict[str, list[tuple[str, str, str]]]:
        found: dict[str, list[tuple[str, str, str]]] = {}
        for (_, section, title), row in sorted(self._rows.items(), key=_place):
            found.setdefault(section, []).append((title, *row.columns()))
        return found

    def as_text(self) -> str:
        """Return the table for a terminal."""
        lines = []
        for section, rows in self._sections().items():
            lines.append(f"\n{section}")
            for title, standard, ours in rows:
                lines += textwrap.wrap(title, 110, initial_indent="  ", subsequent_indent="      ")
                lines.append(f"      standard:  {standard}")
                lines.append(f"      pidfdpool: {ours}")
        return "\n".join(lines) + "\n"

    def as_page(self) -> str:
        """Return the page, in Markdown."""
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in PROGRAMS if _installed(name))
        parts = [
            _HEAD.format(
                date=datetime.date.today().isoformat(),
                kernel=platform.release().partition("-")[0],
                python=platform.python_version(),
                versions=versions,
            )
        ]
        for section, rows in self._sections().items():
            parts.append(f"\n## {section}\n\n| case | `ProcessPoolExecutor` | pidfdpool |\n|---|---|---|\n")
            parts += [f"| {' | '.join(_cell(text) for text in row)} |\n" for row in rows]
        return "".join(parts)


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
