"""The pool thread: I/O only. It feeds events to the machine and carries out the machine's actions.

`poller` waits for descriptors, `workers` is the host's end of one worker, `thread` puts them together.
"""
