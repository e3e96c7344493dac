"""What a worker's own modules load: nothing that only type checkers, or only some workers, need."""

from __future__ import annotations

import pytest

from tests.conditions import run_python

OF_ALL = (
    "answers boot chunk chunk_publishing context handover identity import_hook leased_segments log_forwarding mark "
    "process rebuild_guard script_module task_context thread_limits tracebacks"
)


@pytest.mark.parametrize("unneeded", ["typing logging importlib.machinery multiprocessing.process threadpoolctl"])
def test_no_module_of_the_workers_loads_what_only_some_need(unneeded):
    """Guards: `typing` alone takes as long to load as all modules of a worker."""
    done = run_python(
        f"""
        import sys
        unneeded = {unneeded!r}.split()
        for name in unneeded:
            sys.modules.pop(name, None)  # what the interpreter's start has loaded
        for name in {OF_ALL!r}.split():
            __import__("pidfdpool.worker." + name)
            assert not sys.modules.keys() & set(unneeded), name
        assert "pidfdpool.transport.segments.arena" not in sys.modules
        assert "pidfdpool.worker.streaming" not in sys.modules
        """
    )
    assert (done.returncode, done.stderr) == (0, "")
