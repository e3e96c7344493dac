"""`pidfdpool.actions`, where these names were until 0.1."""

from pidfdpool.deaths import Cause

__all__ = ["Cause"]
