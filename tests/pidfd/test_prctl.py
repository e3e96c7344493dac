import errno
import os
import signal
import threading

import pytest

from pidfdpool.pidfd import prctl
from tests.conditions import eventually, is_alive
from tests.pidfd.processes import fork, reap, sleep_long


def in_a_child(body) -> int:
    return os.waitstatus_to_exitcode(reap(fork(body)))


def test_a_subreaper_is_given_its_orphaned_descendants():
    def child() -> int:
        if prctl.get_child_subreaper():
            return 1
        prctl.set_child_subreaper(True)
        if not prctl.get_child_subreaper():
            return 2
        read, write = os.pipe()

        def parent() -> int:
            os.write(write, str(fork(lambda: 7)).encode())
            return 0

        reap(fork(parent))
        orphan = int(os.read(read, 20))
        if os.waitstatus_to_exitcode(reap(orphan)) != 7:
            return 3
        prctl.set_child_subreaper(False)
        return 42 if not prctl.get_child_subreaper() else 4

    assert in_a_child(child) == 42


def test_the_parents_death_kills():
    read, write = os.pipe()

    def parent() -> int:
        ready, tell = os.pipe()

        def child() -> None:
            prctl.set_parent_death_signal(signal.SIGKILL)
            os.write(tell, b"!")
            sleep_long()

        pid = fork(child)
        os.read(ready, 1)
        os.write(write, str(pid).encode())
        return 0

    reap(fork(parent))
    orphan = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    eventually(lambda: not is_alive(orphan), "the orphan is killed")


def test_no_such_signal_is_an_error_with_errno():
    with pytest.raises(OSError, match="prctl") as caught:
        prctl.set_parent_death_signal(1000)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(("name", "kept"), [("short", "short"), ("a name of more than 15 bytes", "a name of more ")])
def test_a_thread_is_named_and_long_names_are_cut(name, kept):
    found = []

    def thread() -> None:
        prctl.set_name(name)
        with open("/proc/thread-self/comm") as file:
            found.append(file.read()[:-1])

    other = threading.Thread(target=thread)
    other.start()
    other.join()
    assert found == [kept]
