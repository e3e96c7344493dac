#!/usr/bin/env bash
# An asyncio loop that lets go of a signal gives back neither the handler nor the wakeup descriptor that was there.
#
# CPython 3.11.7, 3.13.0, 3.14.10, 3.15.2. add_signal_handler replaces the handler of the process, and the descriptor
# of signal.set_wakeup_fd. remove_signal_handler sets the default, which for most signals ends the process, and no
# wakeup descriptor. Closing the loop does the same. So a library that listens to a signal for a while, in a loop of
# its own, takes both away from its program for good. asyncio.run itself puts SIGINT back. Seen, for SIGUSR1 with a
# handler and a wakeup descriptor before asyncio.run of a coroutine that adds and removes a handler:
#     before: a function, a descriptor
#     after: SIG_DFL, -1
set -euo pipefail
tried=77
for python in python3.11 python3.13 python3.14 python3.15; do
    "$python" -c '' 2>/dev/null || continue
    tried=0
    "$python" --version
    "$python" - <<'PROGRAM'
import asyncio, signal, socket, sys

async def listen_for_a_while():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, print)
    loop.remove_signal_handler(signal.SIGUSR1)

read_end, write_end = socket.socketpair()
write_end.setblocking(False)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.set_wakeup_fd(write_end.fileno())
print("before: a function, a descriptor")
asyncio.run(listen_for_a_while())
after = signal.getsignal(signal.SIGUSR1), signal.set_wakeup_fd(-1)
print(f"after: {getattr(after[0], 'name', after[0])}, {after[1]}")
sys.exit(after != (signal.SIG_DFL, -1))
PROGRAM
done
exit "$tried"
