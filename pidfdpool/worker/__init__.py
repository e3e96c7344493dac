"""A worker: the process that runs tasks, one at a time, until it is told to leave.

It owns the loop that reads a task, runs it and answers; what a task can ask and say (`context`); what a worker is to
`multiprocessing`; the module that stands for the host's script; the marks by which its descendants are found.

Runs in the worker's main thread, called by the template's child after the fork. The host asks for names only. It
knows nothing of the pool: not its size, not its queue, not its other workers.
"""
