#!/usr/bin/env bash
# The pidfd of a process that was reaped long ago takes no signal for it, and still takes one for its process group.
#
# Linux 6.18. pidfd_send_signal to a reaped process says ESRCH, as expected. With the flag
# PIDFD_SIGNAL_PROCESS_GROUP (6.9) the same descriptor signals the group whose leader that process was, as long as
# anybody is left in it, because the group keeps the identity of its leader. killpg needs the number, which the
# descriptor does not. Seen, for a leader that has exited and was reaped, and a child that it has left in the group:
#     to the leader: ESRCH
#     to the group: sent; the child has ended: True
set -euo pipefail
for python in python3.11 python3.12 python3.13 python3.14 python3.15 python3; do
    "$python" -c 'import os; os.pidfd_open(os.getpid())' 2>/dev/null || continue
    uname -s -r | cut -d . -f 1,2
    "$python" - <<'PROGRAM' && exit 0 || exit
import ctypes, errno, os, select, signal, sys

if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 9):
    sys.exit(77)
PIDFD_SIGNAL_PROCESS_GROUP, PIDFD_SEND_SIGNAL = 4, 424
read_end, write_end = os.pipe()
stay_read, stay_write = os.pipe()  # the child goes on until it is killed, or this program has ended
leader = os.fork()
if leader == 0:
    os.close(stay_write)
    os.setpgid(0, 0)
    if os.fork() == 0:
        os.write(write_end, str(os.getpid()).encode())
        os.read(stay_read, 1)
    os._exit(0)
child = os.pidfd_open(int(os.read(read_end, 20)))
pidfd = os.pidfd_open(leader)
os.waitpid(leader, 0)
try:
    signal.pidfd_send_signal(pidfd, signal.SIGTERM)
    to_leader = "sent"
except OSError as error:
    to_leader = errno.errorcode[error.errno]
print("to the leader:", to_leader)
libc = ctypes.CDLL(None, use_errno=True)
failed = libc.syscall(PIDFD_SEND_SIGNAL, pidfd, signal.SIGTERM, None, PIDFD_SIGNAL_PROCESS_GROUP)
to_group = errno.errorcode[ctypes.get_errno()] if failed else "sent"
ended = select.select([child], [], [], 5)[0] == [child]
print(f"to the group: {to_group}; the child has ended: {ended}")
sys.exit((to_leader, to_group, ended) != ("ESRCH", "sent", True))
PROGRAM
done
exit 77
