import copy
import errno
import pickle

import pytest

from pidfdpool.pidfd import PidfdDenied, PidfdError, PidfdMisused, ProcessGone
from pidfdpool.pidfd.errors import to_pidfd_error


@pytest.mark.parametrize(
    ("number", "kind", "builtin"),
    [
        (errno.ESRCH, ProcessGone, ProcessLookupError),
        (errno.EPERM, PidfdDenied, PermissionError),
        (errno.EACCES, PidfdDenied, PermissionError),
        (errno.EMFILE, PidfdError, OSError),
    ],
)
def test_a_refusal_is_also_what_a_program_would_catch(number, kind, builtin):
    error = to_pidfd_error(OSError(number, "from the kernel"), "send_signal(SIGTERM)", 42)
    assert type(error) is kind
    assert isinstance(error, builtin)
    assert (error.errno, error.pid, error.operation) == (number, 42, "send_signal(SIGTERM)")


def test_the_message_names_operation_pid_errno_and_advice():
    error = PidfdError(errno.EINVAL, "send_signal(SIGTERM, group=True)", 42, "Signalling a group needs Linux 6.9.")
    for part in ("send_signal(SIGTERM, group=True)", "pid 42", "EINVAL", "Linux 6.9"):
        assert part in str(error)


def test_an_unknown_pid_is_left_out_of_the_message():
    assert "None" not in str(PidfdMisused(errno.EBADF, "from_fd of 3", None))


@pytest.mark.parametrize("kind", [PidfdError, ProcessGone, PidfdDenied, PidfdMisused])
@pytest.mark.parametrize("duplicate", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])
def test_errors_survive_pickling_and_copying(kind, duplicate):
    error = kind(errno.EBADF, "wait", 42, "The handle is closed.")
    again = duplicate(error)
    assert type(again) is kind
    assert (again.errno, again.pid, again.operation, str(again)) == (errno.EBADF, 42, "wait", str(error))
