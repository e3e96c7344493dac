"""What a process sees of itself: of the operating system, and in its interpreter."""

from __future__ import annotations

import gc
import locale
import logging
import os
import resource
import socket
import sys
import time
import warnings

LIMITS = ("NOFILE", "CORE", "FSIZE", "MEMLOCK", "STACK", "CPU", "DATA", "SIGPENDING")


def look(_: object = None) -> dict[str, object]:
    """Return what is inherited from the kernel, from the command line, and what only a fork copies."""
    umask = os.umask(0)
    os.umask(umask)
    with open("/proc/self/oom_score_adj") as file:
        oom_score_adj = int(file.read())
    return {
        # of the process
        "cwd": os.getcwd(),
        "umask": umask,
        "environment": {name: value for name, value in os.environ.items() if name.startswith("LOOKED_AT")},
        "limits": {name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in LIMITS},
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "affinity": sorted(os.sched_getaffinity(0)),
        "user": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "oom_score_adj": oom_score_adj,
        "timezone": time.tzname,
        # of the interpreter, handed over on purpose
        "sys.path": list(sys.path),
        "sys.argv": list(sys.argv),
        "sys.flags": {name: getattr(sys.flags, name) for name in dir(sys.flags) if _is_comparable(name)},
        "sys.warnoptions": sys.warnoptions,
        "options -X": dict(sys._xoptions),
        "sys.prefix": sys.prefix,
        "sys.executable": sys.executable,
        # of the interpreter, copied by a fork only
        "recursion limit": sys.getrecursionlimit(),
        "switch interval": round(sys.getswitchinterval(), 6),
        "gc is enabled": gc.isenabled(),
        "locale": locale.setlocale(locale.LC_NUMERIC),
        "first warnings filter": str(warnings.filters[0][:3]),
        "level of logging": logging.getLogger().level,
        "default timeout of sockets": socket.getdefaulttimeout(),
        "module attribute": getattr(sys.modules[__name__], "attribute", None),
    }


def _is_comparable(name: str) -> bool:
    # The launcher adds -P: the path that it is told is the whole path.
    return not name.startswith(("_", "n_", "count", "index")) and name != "safe_path"


OF_FORK = (
    "recursion limit",
    "switch interval",
    "gc is enabled",
    "locale",
    "first warnings filter",
    "level of logging",
    "default timeout of sockets",
    "module attribute",
)
