#!/usr/bin/env bash
# An epoll that watches a pidfd for no event at all wakes when the process is reaped, and not when it ends.
#
# Linux 6.18. A pidfd becomes readable when its process ends. When somebody has waited for the zombie it has EPOLLHUP
# as well, and that event, like EPOLLERR, is told even to those who have asked for nothing. So whoever has to know that
# another part of the program has reaped a child registers its pidfd with an event mask of 0. The selectors module
# refuses such a mask with ValueError, select.epoll takes it. Seen, events of a pidfd under two masks, 1 is EPOLLIN and
# 16 is EPOLLHUP:
#     zombie: EPOLLIN 1, nothing 0
#     reaped: EPOLLIN 17, nothing 16
set -euo pipefail
for python in python3.11 python3.12 python3.13 python3.14 python3.15 python3; do
    "$python" -c 'import os; os.pidfd_open(os.getpid())' 2>/dev/null || continue
    uname -s -r | cut -d . -f 1,2
    "$python" - <<'PROGRAM' && exit 0 || exit
import os, select, sys

if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 9):
    sys.exit(77)
child = os.fork()
if child == 0:
    os._exit(0)
pidfd = os.pidfd_open(child)
masks = {"EPOLLIN": select.EPOLLIN, "nothing": 0}
epolls = {name: select.epoll() for name in masks}
for name, mask in masks.items():
    epolls[name].register(pidfd, mask)
epolls["EPOLLIN"].poll()  # until it has ended

def events():
    return {name: sum(event for _, event in epoll.poll(0.2)) for name, epoll in epolls.items()}

zombie = events()
os.waitpid(child, 0)
reaped = events()
print("zombie:", ", ".join(f"{name} {event}" for name, event in zombie.items()))
print("reaped:", ", ".join(f"{name} {event}" for name, event in reaped.items()))
sys.exit((zombie, reaped) != ({"EPOLLIN": 1, "nothing": 0}, {"EPOLLIN": 17, "nothing": 16}))
PROGRAM
done
exit 77
