"""Starting gunicorn: the release that is installed, or an old one, which a fixture installs for this run."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from typing import Any

from tests.conditions import ROOT
from tests.hosts.serving import Server, free_port, serve

INSTALLED = "installed"
OLD = "20.1.0"  # halts if any child of the arbiter's exits with 3 or 4, and is still in wide use
# gunicorn 20 asks pkg_resources for its kinds of workers, which newer releases of setuptools do not have any more.
OLD_NEEDS = [f"gunicorn=={OLD}", "setuptools<81"]


def gunicorn(
    contender: str,
    folder: os.PathLike[str],
    *arguments: str,
    app: str = "tests.hosts.programs.wsgi:app",
    release: str | None = None,
    env: dict[str, str] | None = None,
    **options: Any,
) -> AbstractContextManager[Server]:
    """Start gunicorn. release: the folder of one that is to come before the one that is installed."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", *arguments, app]
    env = {"HOME": str(folder), **(env or {})}  # where newer releases put a socket by which they are controlled
    if release is not None:
        env["PYTHONPATH"] = os.pathsep.join([release, ROOT])
    return serve(contender, command, port, folder, env=env, **options)
