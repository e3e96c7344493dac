"""`pidfdpool.context`, where these names were until 0.1."""

from pidfdpool.worker.context import CurrentTask, current_task, heartbeat, unhealthy

__all__ = ["CurrentTask", "current_task", "heartbeat", "unhealthy"]
