"""Running hosts whose program is `programs/trapped.py` and a few lines that lay the trap."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import textwrap
from collections.abc import Sequence
from typing import Any

from tests.hosts.observing import Observed, expect, host, python

PRELUDE = """\
import gc, os, resource, signal, sys, threading, time
from tests.hosts.programs import tasks, trapped
from tests.hosts.programs.contender import ProcessPoolExecutor
from tests.hosts.programs.trapped import OURS, compute, expect, go_on, lose, observed, result, tell, use
"""


def trap(
    contender: str,
    code: str,
    *arguments: str,
    flags: Sequence[str] = (),
    env: dict[str, str] | None = None,
    noise: bool = False,
    status: int = 0,
    command: Sequence[str] | None = None,
    before: str = "",
    seconds: float | None = None,
    **options: Any,
) -> list[Any]:
    """Run a host and return what it told; fail the case for what it observed, or if it does not end as it should.

    noise: it may say something on standard error.
    status: how it is to end.
    command: what runs it, in the place of this interpreter with the flags, for the code as a last argument but the
        host's own.
    before: what the program begins with, before anything is imported.
    """
    script = before + PRELUDE + textwrap.dedent(code)
    whole = [*command, script, *arguments] if command else python(script, *arguments, flags=flags)
    return watch(contender, whole, env=env, noise=noise, status=status, seconds=seconds, **options)


def watch(
    contender: str,
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    noise: bool = False,
    status: int = 0,
    seconds: float | None = None,
    **options: Any,
) -> list[Any]:
    """Run a command whose program uses `programs/trapped.py`, and judge it as `trap` does."""
    with tempfile.NamedTemporaryFile(mode="r", prefix="told-") as file:
        os.chmod(file.name, 0o666)  # hosts may be other users
        env = {**(env or {}), "PIDFDPOOL_TOLD": file.name}
        seconds = seconds or (45.0 if contender != "standard" else 10.0)
        # Its output goes into files: pipes would be held open by whatever the host leaves behind.
        with tempfile.TemporaryFile("w+", errors="replace") as out, tempfile.TemporaryFile("w+") as err:
            with host(contender, command, env=env, stdout=out, stderr=err, **options) as process:
                try:
                    ended = process.wait(seconds)
                except subprocess.TimeoutExpired:
                    ended = None
            out.seek(0)
            err.seek(0)
            errors, said = err.read(), f"{out.read(2000)}\n"
            said += errors
        told = [json.loads(line) for line in file.read().splitlines()]
    last = next((line for line in reversed(errors.splitlines()) if line and not line.startswith(" ")), "")[:300]
    for value in told:
        if isinstance(value, dict) and "observed" in value:
            raise Observed(f"{value['observed']}\n{said}")
    expect(ended is not None, "the host does not end", f"not within {seconds:g} s\n{told}\n{said}")
    if ended != status:
        how = f"exit status {ended}" if ended >= 0 else signal.Signals(-ended).name
        raise Observed(f"the host ends with {how}: {last or 'no word why'}\n{told}\n{said}")
    expect(noise or not errors, f"noise on standard error: {last}", said)
    return told
