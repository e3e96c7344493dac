import errno
import json
import os
import resource

import pytest

from pidfdpool.pidfd import Pidfd, PidfdError, capabilities, capability
from tests.conditions import run_python
from tests.pidfd.processes import fork, open_descriptors, reap

NAMES = ("open", "send_signal", "group_signal", "waitid", "info", "info_exit", "queue_value", "usable")

REPORT = f"""
import json
from pidfdpool.pidfd import capabilities
print(json.dumps({{name: getattr(capabilities(), name) for name in {NAMES!r}}}))
"""


@pytest.fixture
def nothing_known(monkeypatch):
    monkeypatch.setattr(capability, "_known", {})
    monkeypatch.delenv(capability.FORCE_FALLBACK, raising=False)


def granted(denial: str = "", **options) -> dict[str, bool]:
    result = run_python(denial + "\n" + REPORT, **options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_what_is_granted_is_what_works(nothing_known):
    pid = fork(lambda: 3)
    with Pidfd.open(pid) as handle:
        reap(pid)
        assert capabilities().info_exit == (not handle.exit_status().unknown)
    assert capabilities().usable == (capabilities().open and capabilities().send_signal and capabilities().waitid)
    assert capabilities().usable


def test_the_repr_tells_everything(nothing_known):
    for name in NAMES[:-1]:
        assert f"{name}={getattr(capabilities(), name)}" in repr(capabilities())


def test_answers_cannot_be_changed():
    with pytest.raises(AttributeError):
        capabilities().open = False
    with pytest.raises(AttributeError):
        capabilities().more = True


def test_probing_leaves_no_descriptor_open(nothing_known):
    before = open_descriptors()
    repr(capabilities())
    assert open_descriptors() == before


def test_answers_are_kept(nothing_known, monkeypatch):
    assert capabilities().usable
    monkeypatch.delattr(os, "pidfd_open")
    assert capabilities().usable


def test_the_environment_forces_the_fallback_at_any_time(nothing_known, monkeypatch):
    assert capabilities().usable
    monkeypatch.setenv("PIDFDPOOL_NO_PIDFD", "1")
    assert [name for name in NAMES if getattr(capabilities(), name)] == []
    monkeypatch.delenv("PIDFDPOOL_NO_PIDFD")
    assert capabilities().usable


@pytest.mark.parametrize("name", NAMES)
def test_a_lack_of_descriptors_is_an_error_and_is_not_remembered(nothing_known, name):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        with pytest.raises(PidfdError) as caught:
            getattr(capabilities(), name)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert (caught.value.errno, caught.value.pid) == (errno.EMFILE, os.getpid())
    assert getattr(capabilities(), name)


def test_a_python_that_was_built_without_the_call_has_no_pidfds(nothing_known, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    assert [name for name in NAMES if getattr(capabilities(), name)] == []


def test_a_pidfd_that_reads_as_ended_at_once_is_useless(nothing_known, monkeypatch):
    monkeypatch.setattr(capability, "_poll", lambda fd, milliseconds=0: True)
    assert not capabilities().open
    assert not capabilities().usable


@pytest.mark.parametrize("number", ["ENOSYS", "EPERM"])
def test_behind_a_filter_that_refuses_to_open_nothing_is_granted(number):
    denial = f"import errno\nfrom tests.seccomp import *\ndeny({{PIDFD_OPEN}}, errno.{number})"
    assert granted(denial) == dict.fromkeys(NAMES, False)


@pytest.mark.parametrize("number", ["ENOSYS", "EPERM"])
def test_that_opening_works_proves_nothing_about_signals(number):
    denial = f"import errno\nfrom tests.seccomp import *\ndeny({{PIDFD_SEND_SIGNAL}}, errno.{number})"
    assert {name: value for name, value in granted(denial).items() if name != "info_exit" and name != "info"} == {
        "open": True,
        "send_signal": False,
        "group_signal": False,
        "waitid": True,
        "queue_value": False,
        "usable": False,
    }


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_where_no_process_is_reaped_by_its_pidfd_a_pool_has_no_use_for_pidfds(nothing_known, monkeypatch, number):
    """Linux 5.3 has pidfds, but no waitid for them."""

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "waitid", refuse)
    assert capabilities().open
    assert capabilities().send_signal
    assert not capabilities().waitid
    assert not capabilities().usable


@pytest.mark.parametrize(("number", "kind"), [("ENOSYS", "PidfdError"), ("EPERM", "PidfdDenied")])
def test_behind_a_filter_opening_is_an_error_with_errno_and_pid(number, kind):
    script = f"""
        import errno, os
        from tests.seccomp import *
        from pidfdpool.pidfd import Pidfd, PidfdError
        deny({{PIDFD_OPEN}}, errno.{number})
        try:
            Pidfd.self()
        except PidfdError as error:
            print(type(error).__name__, error.errno == errno.{number}, error.pid == os.getpid())
    """
    assert run_python(script).stdout == f"{kind} True True\n"


def test_a_kernel_without_group_signals_is_told_from_one_with(nothing_known):
    denial = "import errno\nfrom tests.seccomp import *\n"
    denial += "deny({PIDFD_SEND_SIGNAL}, errno.EINVAL, when_argument_3_is=4)"
    old = granted(denial)
    assert old["send_signal"]
    assert old["usable"]
    assert not old["group_signal"]
