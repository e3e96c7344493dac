"""Converts calls, results and exceptions to buffers and back.

The room owns the decision what travels by reference and what by value, the names and values of scripts in a worker,
the `multiprocessing` objects that workers inherit, and the large buffers outside of a pickle.

It is called in the host by the threads that submit or resolve, and in a worker by its only thread; always without the
pool's lock. It must not know channels, tasks or workers.
"""
