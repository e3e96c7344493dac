"""A worker: the process that runs tasks, one at a time, until it is told to leave.

`process` is its loop, `identity` what it is to `multiprocessing`, `chunk` the task that `map` is made of.
"""
