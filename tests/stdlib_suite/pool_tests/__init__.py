"""CPython's tests of `multiprocessing.Pool`, a module for each start method, as CPython has them itself."""
