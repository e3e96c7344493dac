"""The template: the process that every worker is forked from.

`boot` is what it is told at its start, `process` what runs in it, `client` how the host starts one and talks to it.
"""
