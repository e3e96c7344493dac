"""What nodes run in the tests of the command; each says in a folder what it does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def note(folder, what, node):
    Path(folder, f"{what}-{node.id}-{node.attempt}-{os.getpid()}").touch()


def live(node, folder):
    """Live until it is told to end."""
    note(folder, "lives", node)
    while not node.stopping.wait(0.02):
        node.healthy()
        if node.quiet.is_set() and not list(Path(folder).glob(f"quiet-{node.id}-*")):
            note(folder, "quiet", node)
    note(folder, "stopped", node)


def finish(node, *texts):
    node.healthy()
    print(f"node {node.id} finishes with {', '.join(texts)}", flush=True)


def spin_deaf(node, folder):
    """Ignore whatever can be ignored."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(folder, "lives", node)
    while True:
        node.healthy()


def raise_at_once(node):
    raise ValueError("no queue here")


def die_at_once(node, folder):
    note(folder, "lives", node)
    os._exit(3)


def never_report(node, folder):
    note(folder, "lives", node)
    node.stopping.wait()


def hang_in_a_lock(node, folder):
    node.healthy()
    sit_there_for_ever(node, folder)


def sit_there_for_ever(node, folder):
    note(folder, "lives", node)
    while True:
        time.sleep(3600)


def leave_orphans(node, folder):
    """Start processes whose parent ends before they do."""
    subprocess.run(["sh", "-c", "sleep 0.2 & setsid sleep 0.2 &"], check=True)
    live(node, folder)
