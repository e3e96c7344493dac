"""What the kernel counts for the memory of a cgroup."""

from __future__ import annotations

import pytest

from pidfdpool.loop.cgroup import MemoryEvents, find, parse

V2 = "low 0\nhigh 3\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n"
V1 = "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"


def put(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def test_the_counters_of_version_2_are_read():
    assert parse(V2) == {"low": 0, "high": 3, "max": 7, "oom": 2, "oom_kill": 1, "oom_group_kill": 0}


def test_of_version_1_only_what_counts_is():
    assert parse(V1) == {"oom_kill": 4}
    assert parse("oom_kill_disable 0\nunder_oom 1\n") == {}, "before Linux 4.13"


@pytest.mark.parametrize("text", ["", "\n\n", "oom_kill\n", "oom_kill many\n", "one two three\n", "oom_kill -1\n"])
def test_what_is_no_counter_is_passed_over(text):
    assert parse(text) == {}
    assert parse(text + "\noom_kill 2\n") == {"oom_kill": 2}


def test_version_2_is_found_by_its_path(tmp_path):
    path = put(tmp_path / "user.slice" / "a:b" / "memory.events", V2)
    put(tmp_path / "memory.events", V2)
    assert find(str(tmp_path), "0::/user.slice/a:b\n") == path


def test_in_a_container_the_path_may_be_the_one_outside(tmp_path):
    path = put(tmp_path / "memory.events", V2)
    assert find(str(tmp_path), "0::/docker/0123\n") == path
    assert find(str(tmp_path), "0::/\n").replace("//", "/") == path


def test_version_1_is_found_by_its_controller(tmp_path):
    path = put(tmp_path / "memory" / "jobs" / "memory.oom_control", V1)
    membership = "12:cpu,cpuacct:/other\n9:memory:/jobs\n1:name=systemd:/init.scope\n"
    assert find(str(tmp_path), membership) == path
    outside = put(tmp_path / "memory" / "memory.oom_control", V1)
    assert find(str(tmp_path), "9:memory:/elsewhere\n") == outside


def test_in_a_hybrid_the_version_that_has_the_memory_is_found(tmp_path):
    path = put(tmp_path / "memory" / "jobs" / "memory.oom_control", V1)
    for membership in ("9:memory:/jobs\n0::/init.scope\n", "0::/init.scope\n9:memory:/jobs\n"):
        assert find(str(tmp_path), membership) == path


@pytest.mark.parametrize("membership", ["", "nonsense", "0::/nowhere\n", "3:cpu:/\n", "9:memory:/nowhere\n"])
def test_where_there_is_nothing_nothing_is_found(tmp_path, membership):
    assert find(str(tmp_path), membership) is None


def test_only_what_rose_is_told_and_only_once(tmp_path):
    path = tmp_path / "memory.events"
    put(path, V2)
    events = MemoryEvents(str(tmp_path), put(tmp_path / "cgroup", "0::/\n"))
    assert events.readable
    assert events.risen() == {}
    put(path, "low 0\nhigh 3\nmax 9\noom 3\noom_kill 4\noom_group_kill 0\n")
    assert events.risen() == {"max": 2, "oom": 1, "oom_kill": 3}
    assert events.risen() == {}


def test_a_counter_that_is_new_counts_from_nothing_and_one_that_fell_is_not_told(tmp_path):
    path = tmp_path / "memory.events"
    put(path, "oom 5\n")
    events = MemoryEvents(str(tmp_path), put(tmp_path / "cgroup", "0::/\n"))
    put(path, "oom 2\noom_kill 1\n")
    assert events.risen() == {"oom_kill": 1}
    put(path, "oom 3\noom_kill 1\n")
    assert events.risen() == {"oom": 1}


def test_counters_that_cannot_be_read_for_a_moment_do_not_rise_by_all_that_they_ever_counted(tmp_path):
    path = tmp_path / "memory.events"
    put(path, V2)
    events = MemoryEvents(str(tmp_path), put(tmp_path / "cgroup", "0::/\n"))
    path.unlink()
    assert events.risen() == {}
    put(path, V2)
    assert events.risen() == {}


def test_without_a_cgroup_there_is_nothing_to_tell(tmp_path):
    events = MemoryEvents(str(tmp_path), str(tmp_path / "missing"))
    assert not events.readable
    assert events.risen() == {}


def test_this_host_can_be_asked():
    assert isinstance(MemoryEvents().risen(), dict)
