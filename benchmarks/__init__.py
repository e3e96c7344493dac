"""Times our pool against the standard one; `python -m benchmarks` prints the medians and their ratio.

`cases` says what is timed. Nothing here is asserted: figures from a busy machine are not a test.
"""
