"""`pidfdpool.options`, where these names were until 0.1."""

from pidfdpool.executor.options import Options

__all__ = ["Options"]
