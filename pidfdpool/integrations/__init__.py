"""Doors for other libraries: a pool of this package behind the interfaces that those libraries use.

A door uses the public names of the package only, so it works as any program would. It is loaded when it is imported,
and the library that it is for as well. `process_pool` is for code that was written for `multiprocessing.Pool`,
`joblib_backend` for joblib, `dask_cluster` for Dask, `metrics` for Prometheus and OpenTelemetry.

Called by users and by the library that a door is for, on their threads. No other room imports this one; a file of the
root bears the name by which users import a door.
"""
