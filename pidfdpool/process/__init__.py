"""The process itself: the interpreter's own functions, signals, locks, the exit, messages that cannot fail.

It owns native calls that a host may have replaced in the standard modules (`native`), what a new process drops of its
parent (`hygiene`), waits that miss no signal (`interruptible`), counters that can be waited for, spinning, and the
number of CPUs that it may use (`cpus`).

Called by every room, in every process, on any thread. It knows nothing of the pool and imports no other room.
"""
