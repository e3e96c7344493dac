"""What the errors of a template's start mean for the pool, and what the user is told."""

from __future__ import annotations

import errno
import re

import pytest

from pidfdpool.loop import template_starter
from pidfdpool.loop.template_starter import check_startable, try_start
from pidfdpool.scheduler import events as ev
from tests.loop.test_template_starter import refuse, start_by


def failing(monkeypatch, error):
    start_by(monkeypatch, refuse(error))
    return try_start(None)


@pytest.mark.parametrize(
    ("numbers", "advice"),
    [
        ((errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP), "changed its root directory or its user"),
        ((errno.ENOEXEC,), "It is no program. Name Python with multiprocessing.set_executable"),
        ((errno.EPERM, errno.ENOSYS), "may not fork .* perhaps in a sandbox"),
        ((errno.E2BIG,), "The environment, a variable in it, or sys.path is larger"),
    ],
)
def test_what_the_system_will_always_refuse_is_told_with_what_helps(monkeypatch, numbers, advice):
    for number in numbers:
        error = OSError(number, "no")
        end, event, cause = failing(monkeypatch, error)
        assert (end, type(event), cause) == (None, ev.TemplateUnusable, error)
        assert event.reason.startswith(f"the template cannot be started: [Errno {number}] no. ")
        assert re.search(advice, event.reason)


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE])
def test_what_the_system_refuses_for_the_moment_is_tried_again(monkeypatch, number):
    expected = None, ev.TemplateLost(f"it could not be started: [Errno {number}] no"), None
    assert failing(monkeypatch, OSError(number, "no")) == expected


@pytest.mark.parametrize("known", [True, False])
def test_what_cannot_be_sent_is_told_with_its_own_error(monkeypatch, known):
    error = template_starter.client.NotSendable()
    error.__cause__ = TypeError("a lock") if known else None
    end, event, cause = failing(monkeypatch, error)
    told = repr(error.__cause__)
    reason = f"the initializer or preload cannot be sent to workers: {told}"
    assert (end, event, cause) == (None, ev.TemplateUnusable(reason), error.__cause__ or error)


@pytest.mark.parametrize(("greenlets", "main"), [(False, False), (False, True), (True, True), (True, False)])
def test_a_thread_that_is_a_greenlet_can_be_started_in_the_main_thread_only(monkeypatch, greenlets, main):
    monkeypatch.setattr(template_starter.native, "threads_are_greenlets", lambda: greenlets)
    monkeypatch.setattr(template_starter.native, "in_main_thread", lambda: main)
    if greenlets and not main:
        with pytest.raises(RuntimeError, match="started from the main thread"):
            check_startable()
    else:
        check_startable()
