"""Reaps orphans where this program is pid 1 or a subreaper, as an init has to.

Runs on the main thread of the supervisor, after SIGCHLD. Nodes and the template are none of its business: nodes are
children of the template, and the swarm learns of their ends by pidfds, whoever reaps. So it may reap whatever ended.
"""

from __future__ import annotations

import os

from pidfdpool.pidfd import prctl


def is_wanted() -> bool:
    """Return whether orphans become children of this process."""
    return os.getpid() == 1 or prctl.get_child_subreaper()


def reap() -> int:
    """Reap every child that has ended, and return how many there were. Does not wait."""
    count = 0
    try:
        while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG) is not None:
            count += 1
    except ChildProcessError:
        pass
    return count
