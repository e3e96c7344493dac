"""The template, which is the process that forks all workers and reaps them, and the host's client of it.

It owns how a template is started (a fresh interpreter, or a fork of the host), what the template is told, how it
forks workers, and what becomes of their descendants.

`recipe`, `client`, `connection`, `launch`, `handshake` and `interpreter` run in the host, on the thread that starts a
pool. Everything else runs in the template, which has one thread and runs no code of the user's but the preload and
the script. It knows nothing of tasks.
"""
