"""What scripts define in `__main__` and use in tasks, each kind in a small script, run with each pool."""
