"""A node that misbehaves at random, and says so if it finds another process of the same node alive."""

from __future__ import annotations

import faulthandler
import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from pidfdpool import PidfdPoolExecutor

QUIET_DOWN = "quiet-down"  # a file: while it is there, nodes behave


OWN_SESSIONS = [False]  # of processes that are left behind: a template that is killed cannot end them


def run(node, folder, seed, exclusive, keeps_template):
    """Behave well for a while, then not; for ever, until it is told to stop."""
    if keeps_template:
        OWN_SESSIONS.append(True)
    faulthandler.disable()  # it would say much
    chance = random.Random(f"{seed}-{node.id}-{node.attempt}")
    lock = open(Path(folder, f"lock-{node.id}"), "w")
    if exclusive:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # belongs to this process, and is not inherited
        except OSError:
            Path(folder, f"two-of-{node.id}-{os.getpid()}").touch()
    kept = []
    while not node.stopping.wait(0.01):
        node.healthy()
        if chance.random() < 0.03 and not Path(folder, QUIET_DOWN).exists():
            chance.choice(MISBEHAVIOURS)(node, kept)


def hang(node, kept):
    time.sleep(3600)


def hang_in_c(node, kept):
    """Keep the GIL, so that no Python code runs any more, not even a handler."""
    sum(range(1 << 60))


def spin_deaf(node, kept):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass


def stand_still(node, kept):
    os.kill(os.getpid(), signal.SIGSTOP)


def crash(node, kept):
    signal.raise_signal(signal.SIGSEGV)


def kill_itself(node, kept):
    signal.raise_signal(signal.SIGKILL)


def fail(node, kept):
    raise ValueError("chaos")


def leave(node, kept):
    sys.exit(node.attempt % 5)


def be_unhealthy(node, kept):
    node.unhealthy("chaos")


def leak(node, kept):
    kept.append(bytearray(b"x") * (150 << 20))


def fork_away(node, kept):
    """Leave processes behind."""
    nothing = subprocess.DEVNULL
    for own_session in OWN_SESSIONS:
        subprocess.Popen(["sleep", "3600"], start_new_session=own_session, stdout=nothing, stderr=nothing)
    if node.attempt % 2:
        os._exit(7)


def use_a_pool(node, kept):
    with PidfdPoolExecutor(1) as pool:
        assert pool.submit(abs, -1).result(10) == 1


def close_everything(node, kept):
    os.closerange(3, 1024)


MISBEHAVIOURS = (
    *(hang, hang_in_c, spin_deaf, stand_still, crash, kill_itself, fail, leave, be_unhealthy, leak, fork_away),
    *(use_a_pool, close_everything),
)
