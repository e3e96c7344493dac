import os
import pickle
import signal
from types import SimpleNamespace

import pytest

from pidfdpool.pidfd import ExitStatus
from tests.pidfd.processes import fork

CORE = 0x80


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_code_is_read_from_a_wait_status(code):
    status = ExitStatus.from_wait_status(code << 8)
    assert (status.code, status.signal, status.core_dumped, status.unknown) == (code, None, False, False)
    assert status.returncode == code
    assert str(status) == f"exited with code {code}"


def test_a_signal_is_read_from_a_wait_status():
    status = ExitStatus.from_wait_status(signal.SIGKILL)
    assert (status.code, status.signal, status.core_dumped, status.unknown) == (None, 9, False, False)
    assert status.returncode == -9
    assert str(status) == "killed by SIGKILL"


def test_a_core_dump_is_told_from_a_plain_death():
    status = ExitStatus.from_wait_status(signal.SIGSEGV | CORE)
    assert status.core_dumped
    assert str(status) == "killed by SIGSEGV (core dumped)"
    assert status != ExitStatus.from_wait_status(signal.SIGSEGV)


def test_a_signal_without_a_name_is_shown_by_its_number():
    assert str(ExitStatus.from_wait_status(50)) == "killed by signal 50"


def test_the_unknown_status_claims_nothing():
    status = ExitStatus.UNKNOWN
    assert status.unknown
    assert (status.code, status.signal, status.returncode, status.to_wait_status()) == (None, None, None, None)
    assert str(status) == "exit status unknown"


@pytest.mark.parametrize("wait_status", [0, 3 << 8, 255 << 8, 9, 64, 11 | CORE])
def test_a_status_survives_the_way_over_a_wire(wait_status):
    status = ExitStatus.from_wait_status(wait_status)
    assert status.to_wait_status() == wait_status
    assert ExitStatus.from_wait_status(status.to_wait_status()) == status


@pytest.mark.parametrize(("name", "is_core"), [("CLD_KILLED", False), ("CLD_DUMPED", True)])
def test_what_waitid_says_of_a_signal_is_understood(name, is_core):
    status = ExitStatus.from_waitid(SimpleNamespace(si_code=getattr(os, name), si_status=11))
    assert (status.signal, status.core_dumped) == (11, is_core)


def test_what_waitid_says_of_a_real_exit_is_understood():
    pid = fork(lambda: 3)
    assert ExitStatus.from_waitid(os.waitid(os.P_PID, pid, os.WEXITED)).code == 3


def test_a_process_that_was_stopped_has_no_exit_status():
    with pytest.raises(ValueError, match="not the wait status"):
        ExitStatus.from_wait_status(0x7F | signal.SIGSTOP << 8)
    with pytest.raises(ValueError, match="si_code"):
        ExitStatus.from_waitid(SimpleNamespace(si_code=os.CLD_STOPPED, si_status=19))


def test_a_status_is_a_value():
    one, same = ExitStatus.from_wait_status(9), ExitStatus.from_wait_status(9)
    assert one == same
    assert len({one, same, ExitStatus.UNKNOWN}) == 2
    assert pickle.loads(pickle.dumps(one)) == one
    assert repr(one) == "<ExitStatus: killed by SIGKILL>"
    with pytest.raises(AttributeError):
        one.code = 0
