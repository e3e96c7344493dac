"""Times our pool against others; `python -m benchmarks --help`, and `benchmarks.__main__` says what is measured how.

`recycling` and `preload` measure supervision, each by itself. Nothing here is asserted: figures from a busy machine
are not a test.
"""
