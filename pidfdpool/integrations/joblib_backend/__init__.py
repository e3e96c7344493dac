"""The door for joblib, and what is built on it: scikit-learn and others. Users import it as `pidfdpool.joblib`.

`backend` has the backend that joblib asks, `pools` the pools that its calls share, `preload` what the template loads
before the workers are forked.

Called by joblib, on the threads that use `joblib.Parallel`. Nothing here knows how the executor works: it is used by
its public names only.
"""
