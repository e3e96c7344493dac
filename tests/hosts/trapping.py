"""Running hosts whose program is `programs/trapped.py` and a few lines that lay the trap."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import textwrap
from collections.abc import Sequence
from typing import Any

from tests.hosts.observing import Observed, expect, python, run

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
    **options: Any,
) -> list[Any]:
    """Run a host and return what it told; fail the case for what it observed, or if it does not end as it should.

    noise: it may say something on standard error.
    status: how it is to end.
    command: what runs it, in the place of this interpreter with the flags, for the code as a last argument but the
        host's own.
    """
    with tempfile.NamedTemporaryFile(mode="r", prefix="told-") as file:
        os.chmod(file.name, 0o666)  # hosts may be other users
        script = PRELUDE + textwrap.dedent(code)
        whole = [*command, script, *arguments] if command else python(script, *arguments, flags=flags)
        options.setdefault("seconds", 40.0 if contender != "standard" else 12.0)
        options.setdefault("hangs", "the host does not end")
        done = run(contender, whole, env={**(env or {}), "PIDFDPOOL_TOLD": file.name}, **options)
        told = [json.loads(line) for line in file.read().splitlines()]
    for value in told:
        if isinstance(value, dict) and "observed" in value:
            raise Observed(f"{value['observed']}\n{done.stdout}\n{done.stderr}")
    if done.returncode != status:
        last = done.stderr.strip().splitlines()[-1:] or ["no word why"]
        ended = f"exit status {done.returncode}" if done.returncode >= 0 else signal.Signals(-done.returncode).name
        raise Observed(f"the host ends with {ended}: {last[0]}\n{done.stdout}\n{done.stderr}")
    expect(noise or not done.stderr, "noise on standard error", done.stderr)
    return told
