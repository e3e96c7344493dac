"""A worker: the process that runs tasks, one at a time, until it is told to leave.

It owns the loop that reads a task, runs it and answers; the functions that a task can call about itself (`context`);
what a worker is to `multiprocessing`; the module that takes the place of the host's script; and the marks by which
the descendants of workers are found.

Runs on the worker's main thread, called by the template's child after the fork. The host imports it only for names.
It knows nothing of the pool: not its size, not its queue, not its other workers.
"""
