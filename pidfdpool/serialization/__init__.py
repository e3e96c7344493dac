"""Calls, results and exceptions <-> buffers.

It owns what travels by reference and what by value, the names and values of scripts in a worker, what
`multiprocessing` may share, and which large buffers are left out of a pickle.

Called in the host by whoever submits or resolves, and in workers by their loop; on any thread, without a lock of the
pool's. It knows nothing of channels, tasks or workers.
"""
