"""A worker of RQ's that imports its jobs before it forks for each of them."""

from __future__ import annotations

from redis import Redis
from rq import Queue, Worker

from tests.hosts.far.programs import jobs

if __name__ == "__main__":
    connection = Redis.from_url(jobs.URL)
    Worker([Queue(connection=connection)], connection=connection).work()
