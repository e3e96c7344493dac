"""What nodes run that are signalled while they are being born. Apart from the tests, so that nodes load little."""

from __future__ import annotations

import os
import time
from pathlib import Path


def leave(node):
    node.healthy()


class SlowToLoad:
    """Takes long to be rebuilt in a node, the first time."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return _load_slowly, (self.path,)


def _load_slowly(path):
    if not os.path.exists(path):
        Path(path).write_text(str(os.getpid()))
        time.sleep(60)
    return SlowToLoad(path)


def live(node, _slow):
    node.healthy()
    node.stopping.wait()
