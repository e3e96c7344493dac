"""Imports the modules that a worker otherwise loads when a task first needs them. Importing this file does it.

The template imports this before it forks the first worker of a pool that has an initializer. That code may take away
what an import needs: it is where workers are given another root directory, another user, or a limit of descriptors.
"""

from __future__ import annotations

import traceback  # noqa: F401

import pidfdpool.checks
import pidfdpool.process.safe_logging
import pidfdpool.serialization.salvage
import pidfdpool.worker.chunk_publishing
import pidfdpool.worker.recording
import pidfdpool.worker.streaming
import pidfdpool.worker.task_context  # noqa: F401
