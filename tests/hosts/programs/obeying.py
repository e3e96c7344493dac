"""What a host does that is told what to do, line by line."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable


def obey(made: Callable[[], object], sigchld: str) -> None:
    """Make the host, and call its methods: `[name, argument, ...]` on standard input, the answer as JSON.

    sigchld: says what it does about SIGCHLD.
    """
    if sigchld == "ignores SIGCHLD":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    host = made()
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(getattr(host, name)(*arguments)), flush=True)
