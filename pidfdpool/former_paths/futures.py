"""`pidfdpool.futures`, where these names were until 0.1."""

from pidfdpool.executor.futures import Future, WorkerName

__all__ = ["Future", "WorkerName"]
