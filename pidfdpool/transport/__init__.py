"""Carries bytes between processes: frames, channels, tokens, the black box, and segments of shared memory.

The room owns the layout of everything that one process writes and another one reads, and checks what it reads before
anybody relies on it.

It is called at both ends, by the thread that reads or writes there; the caller makes sure that no other thread does
so at the same time. It never pickles, and must not know what a payload means.
"""
