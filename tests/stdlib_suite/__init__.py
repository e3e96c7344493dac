"""CPython's own test suite for process pools, run against ours.

`locate` finds the suite in an installed interpreter, `child` runs one of its classes in a process of its own,
`expected` names the tests that differ, with reasons, and `test_standard_suite` makes each of CPython's tests a test
of ours. As a command: `python -m tests.stdlib_suite [--against stdlib]` prints a table.
"""
