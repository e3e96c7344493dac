"""Bytes between processes: frames, channels, tokens, the black box, and segments of shared memory.

It owns the layout of everything that one process writes and another one reads, and checks what it reads before it
believes it.

Called at both ends, by the thread that reads or writes there; the caller keeps others away. Nothing here pickles, and
nothing knows what a payload means.
"""
