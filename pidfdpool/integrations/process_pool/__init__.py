"""The door for code that was written for `multiprocessing.Pool`; users import it as `pidfdpool.multiprocessing`.

`pool` has the pool, `requests` what can be asked of one, `results` and `iterators` what that returns, `inputs` how an
iterable is read, `calls` the functions that run in workers, `contexts` and `installing` how a program comes to this
pool, `at_exit` what happens when the interpreter ends.

Called by users, on their threads; callbacks run in the thread that takes a result, mostly the pool's. Nothing here
knows how the executor works: it is used by its public names only.
"""
