"""Imports all modules that a template and its workers load in any case. Importing this file does it.

A host whose template is to be forked from it imports this when the executor is made. By the first submit the host may
have called chroot(2), or changed its user, and no file of Python's can be read any more.
"""

from __future__ import annotations

import faulthandler  # noqa: F401
import fcntl  # noqa: F401
import logging  # noqa: F401
import mmap  # noqa: F401
import traceback  # noqa: F401
from multiprocessing import process  # noqa: F401

import pidfdpool.pidfd.sentinel
import pidfdpool.pidfd.status
import pidfdpool.serialization.inherited
import pidfdpool.template.process
import pidfdpool.template.reaper
import pidfdpool.transport.segments.arena
import pidfdpool.transport.segments.layout
import pidfdpool.worker.process  # noqa: F401
from pidfdpool.process import native

native.load_ctypes()  # prctl needs it
