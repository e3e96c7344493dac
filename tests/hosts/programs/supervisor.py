"""A supervisor as many are: it starts one program, reaps whatever becomes its child, and ends when nothing is left.

As a child subreaper, or as pid 1 of a pid namespace, it is given every orphan below it. Arguments: the command. It
prints the program's pid, then, at the program's end, how it ended, and last whom it waited for in vain, if anybody.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from pidfdpool.pidfd import prctl
from tests.conditions import children, is_alive


def main(command: list[str]) -> None:
    prctl.set_child_subreaper(True)
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    print("started", program.pid, flush=True)
    ended = None
    while ended is None or time.monotonic() < ended + 3.0:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            print("all ended", flush=True)
            return
        if not pid:
            time.sleep(0.005)
        if pid == program.pid:
            ended = time.monotonic()
            print("ended", os.waitstatus_to_exitcode(status), flush=True)
    print("left", len([pid for pid in children(os.getpid()) if is_alive(pid)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
