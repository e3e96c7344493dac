"""The trace of a pool: what happened in it, as a file in the format of Chrome and Perfetto.

`trace` is the context manager that users get. It has an observer of the pool (`recorder`), which keeps what it is
told, and has it formatted (`events`, pure) and written (`sink`) in small slices: in the pool thread when the pool has
nothing to do, and for the rest in the thread that leaves the block. Loaded by `PidfdPoolExecutor.trace` only.
"""
