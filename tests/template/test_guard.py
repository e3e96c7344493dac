"""The guard that watches the host while the template runs code of the user's."""

from __future__ import annotations

import gc
import os
import signal
from contextlib import suppress

import pytest

from pidfdpool.pidfd import Pidfd, capabilities
from pidfdpool.template import guard
from tests.conditions import children, eventually, is_alive, open_descriptors

pytestmark = pytest.mark.skipif(not capabilities().usable, reason="needs pidfds")


@pytest.fixture
def host():
    """Give what is readable when the host is gone, and its other end, which the host alone holds."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


@pytest.mark.parametrize("error", [None, LookupError])
def test_the_guard_is_gone_after_the_block_however_that_ends(host, error):
    before = children(os.getpid())
    try:
        with guard.guarded(host[0]):
            assert len(children(os.getpid())) == len(before) + 1
            if error is not None:
                raise error
    except LookupError:
        assert error is LookupError
    assert children(os.getpid()) == before
    os.close(host[1])


@pytest.mark.parametrize("error", [None, LookupError])
def test_no_handle_is_open_after_the_block_and_none_is_left_to_the_collector(host, recwarn, error):
    """Where warnings are errors or are shown, the user would see one of the pool's own after each preload."""
    before = open_descriptors()
    with suppress(LookupError), guard.guarded(host[0]):
        if error is not None:
            raise error
    assert open_descriptors() == before
    gc.collect()
    assert [each.message for each in recwarn if issubclass(each.category, ResourceWarning)] == []
    os.close(host[1])


def start_template(host, *, prctl=True):
    """Fork a process that stays in the block for ever; return its pid when it is there, and that of its guard."""
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        os.close(host[1])
        if not prctl:
            guard.prctl.set_parent_death_signal = lambda _number: None
        try:
            with guard.guarded(host[0]):
                while True:
                    signal.pause()
        finally:
            os._exit(0)
    return pid, eventually(lambda: children(pid), "its guard is there")[0]


def test_a_host_that_goes_away_takes_the_template_along(host):
    template, watcher = start_template(host)
    assert is_alive(template)
    os.close(host[1])
    assert os.waitpid(template, 0)[1] == signal.SIGKILL
    eventually(lambda: not is_alive(watcher), "the guard is gone, too")


@pytest.mark.parametrize("prctl", [True, False], ids=["as usual", "in a sandbox without prctl"])
def test_a_guard_outlives_no_template(host, prctl):
    template, watcher = start_template(host, prctl=prctl)
    with Pidfd.open(template) as handle:
        handle.send_signal(signal.SIGKILL)
    os.waitpid(template, 0)
    try:
        eventually(lambda: not is_alive(watcher), "the guard is gone", seconds=10)
    finally:
        os.close(host[1])
