"""`python -m pidfdpool swarm MODULE:FUNCTION`: the supervisor of a swarm as a program.

Runs on the main thread of a process of its own, which is the host of the swarm, and may be pid 1 of a container.

    __init__      messages and exit codes
    arguments     the arguments, and the help
    commands      signals -> what is to be done
    http          a server for health checks
    health        a reading of the swarm -> what a health check is told
    table         the nodes, as they are printed at the end
    reaping       orphans, where this process has to reap them
"""

from __future__ import annotations
