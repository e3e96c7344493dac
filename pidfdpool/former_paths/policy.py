"""`pidfdpool.policy`, where these names were until 0.1."""

from pidfdpool.scheduler.policy import Policy, PoolOptions, TaskOptions

__all__ = ["Policy", "PoolOptions", "TaskOptions"]
