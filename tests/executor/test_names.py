"""Nothing of a pool has a name that another program could meet, or that stays behind when everything is killed."""

from __future__ import annotations

import os

import pytest

from tests.conditions import run_python


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a /dev/shm of its own")
def test_nothing_is_ever_made_in_dev_shm(way):
    """In a /dev/shm where nobody else can make anything: large payloads, a crash, and a shutdown."""
    done = run_python(
        f"""
        import os
        from pidfdpool import PidfdPoolExecutor
        from tests.hosts.programs import places
        from tests import calls

        places.have_own_mounts()
        places.cover("/dev/shm")
        changed = os.stat("/dev/shm").st_mtime_ns  # of a directory: when a name last came or went
        with PidfdPoolExecutor(2, mp_context={way!r}) as pool:
            for _ in range(3):
                assert pool.submit(calls.double, b"x" * 1_000_000).result() == b"x" * 2_000_000
            assert pool.submit(calls.die).exception() is not None
            assert pool.submit(calls.double, 2).result() == 4
        assert os.listdir("/dev/shm") == []
        assert os.stat("/dev/shm").st_mtime_ns == changed
        """
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("this root may not mount anything")
    assert (done.returncode, done.stderr) == (0, "")
