"""Libraries and programs that take a pool from their user, run on ours, by `tox -e clients`."""
