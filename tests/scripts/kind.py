"""A kind of thing that scripts do, as a script that does it and what that has to print."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

IMPORT = "from concurrent.futures import ProcessPoolExecutor"

_GUARDED = """
{script}

if __name__ == "__main__":
    with ProcessPoolExecutor({workers}) as pool:
        print(({use}))
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One script. It is what a user of the standard pool would write, to the letter.

    script: its text. With `use` this is only what stands before the guard; behind that, a pool named `pool` is made,
    and the expression `use` is printed.
    expected: what it prints, but for white space at both ends.
    since: the first version of Python that has what it needs.
    needs: the distributions that it needs.
    files: what else is in its folder, text by name.
    way: how it is run, one of `ways.WAYS`. arguments: its sys.argv[1:]. flags, env: of the interpreter that runs it.
    says: a regular expression; lines of standard error that match it tell of no problem.
    reason: why it may fail with our pool by default. Not allowed if it works with the standard pool in both ways.
    reason_with_fork: why it may fail with `mp_context="fork"`.
    """

    title: str
    script: str = ""
    use: str = ""
    expected: str
    since: tuple[int, int] = (3, 11)
    needs: tuple[str, ...] = ()
    workers: int = 2
    files: Mapping[str, str] = field(default_factory=dict)
    way: str = "python script.py"
    arguments: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    reason: str = ""
    reason_with_fork: str = ""

    @property
    def text(self) -> str:
        """The script as its author would see it."""
        script = textwrap.dedent(self.script).strip()
        if self.use:
            script = _GUARDED.format(script=script, workers=self.workers, use=textwrap.dedent(self.use).strip())
        return _with_import(script.strip() + "\n")

    @property
    def lines(self) -> list[str]:
        """The lines that it has to print."""
        return textwrap.dedent(self.expected).strip().splitlines()

    @property
    def name(self) -> str:
        """The title, as the id of a test."""
        return re.sub(r"[^A-Za-z0-9.]+", "-", self.title).strip("-.")

    def missing(self) -> list[str]:
        """Return the distributions that are not installed here."""
        return [name for name in self.needs if not is_installed(name)]


def global_used(title: str, made: str, used: str, expected: str, **more: object) -> Kind:
    """Return a kind whose script makes one thing at the top, and uses it in a task."""
    lines = "\n".join(f"    {line}" for line in used.strip().splitlines())
    return Kind(
        title=title,
        script=f"{made.strip()}\n\ndef work(number):\n{lines}\n",
        use="pool.submit(work, 3).result()",
        expected=expected,
        **more,
    )


def is_installed(distribution: str) -> bool:
    """Return whether a distribution is here."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _with_import(script: str) -> str:
    if IMPORT in script:
        return script
    future = "from __future__ import annotations\n"
    if script.startswith(future):
        return f"{future}{IMPORT}\n{script.removeprefix(future)}"
    return f"{IMPORT}\n{script}"
