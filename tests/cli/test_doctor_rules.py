"""What follows from facts that are made up, and how limits are read from trees that are made up."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pidfdpool.cli.doctor import reading, report, rules
from pidfdpool.cli.doctor.facts import Container, Facts, Interpreter, Kernel, Step
from pidfdpool.pidfd import Capabilities

GOOD = Facts(
    Interpreter("3.14.0", cloudpickle="3.1.0", pidfdpool="0.3.0"),
    Kernel("Linux", "6.18", "x86_64", dict.fromkeys(rules.FEATURES, True), calls={"memfd_create": True}),
    Container(
        8, 4, affinity=4, cgroup="v2", cpu_quota=4.0, pids_max=1000, pids_now=10, memory_max=8 << 30,
        memory_now=1 << 30, seccomp=0, dev_shm=1 << 30, limits={"nofile": (1024, 4096)}, pid=7, subreaper=False,
    ),
    (Step("crash", True, 0.1, "as promised"),),
)  # fmt: skip


def findings_of(part, **changes):
    return rules.findings(replace(GOOD, **{part: replace(getattr(GOOD, part), **changes)}))


def changed(part, **changes):
    """Return the findings that these facts have and the good ones have not."""
    good = rules.findings(GOOD)
    return [finding for finding in findings_of(part, **changes) if finding not in good]


def test_where_all_is_well_everything_is_ok():
    found = rules.findings(GOOD)
    assert {finding.level for finding in found} == {"ok"}
    assert {finding.topic for finding in found} == {"kernel", "interpreter", "container", "self-test"}
    assert not rules.is_missing_something(found)


def test_each_feature_of_pidfds_is_told_of():
    fields = {name for name, value in vars(Capabilities).items() if isinstance(value, property)}
    assert set(rules.FEATURES) == fields - {"usable"}


@pytest.mark.parametrize("name", rules.FEATURES)
def test_a_feature_that_is_not_granted_is_a_note_that_says_what_takes_its_place(name):
    (finding,) = changed("kernel", pidfds={**GOOD.kernel.pidfds, name: False})
    assert finding.level == "note"
    assert rules.FEATURES[name].call in finding.text
    assert rules.FEATURES[name].refused in finding.text


NOT_EVEN = "not even one worker can start"


@pytest.mark.parametrize(
    ("part", "changes", "level", "text"),
    [
        ("kernel", {"system": "Darwin"}, "missing", "Darwin is not Linux"),
        ("kernel", {"needed": "may not call socketpair"}, "missing", "no pool works here: may not call socketpair"),
        ("kernel", {"calls": {"memfd_create": False}}, "note", "large payloads travel through sockets"),
        ("kernel", {"pidfds": {"open": "no descriptor"}}, "note", "could not be tried (no descriptor): try again"),
        ("kernel", {"pidfds": {"open": False}, "forced": True}, "note", "PIDFDPOOL_NO_PIDFD is set"),
        ("interpreter", {"version": "3.10.4"}, "missing", "Python 3.10.4 is older than 3.11"),
        ("interpreter", {"version": "strange"}, "missing", "Python strange is older"),
        ("interpreter", {"implementation": "PyPy"}, "note", "PyPy: tests run on CPython only"),
        ("interpreter", {"free_threaded": True}, "note", "it was built without the GIL, but has one now"),
        ("interpreter", {"free_threaded": True, "gil": False}, "note", "it has no GIL"),
        ("interpreter", {"debug": True}, "note", "debug build"),
        ("interpreter", {"cloudpickle": None}, "missing", "pip install cloudpickle"),
        ("container", {"cpu_quota": 1.5}, "note", "make it with max_workers=2"),
        ("container", {"cpu_quota": 0.1}, "note", "make it with max_workers=1"),
        ("container", {"cpu_quota": None}, "ok", "4 of 8 CPUs may be used: a pool has 4 workers by default"),
        ("container", {"pids_max": None}, "ok", "the cgroup does not limit the number of processes"),
        ("container", {"pids_now": 999}, "missing", NOT_EVEN),
        ("container", {"pids_now": 1001}, "missing", NOT_EVEN),
        ("container", {"pids_now": 997}, "note", "3 more processes and threads, and a pool of the"),
        ("container", {"limits": {"nofile": (1024, 4096), "nproc": (12, 99)}}, "note", "12 processes and threads"),
        ("container", {"memory_max": None}, "ok", "the cgroup does not limit memory"),
        ("container", {"memory_now": (8 << 30) - (64 << 20)}, "note", "16 MB are left for each of 4 workers"),
        ("container", {"limits": {"nofile": (1024, 4096), "as": (1 << 30, -1)}}, "note", "1.0 GB of addresses"),
        ("container", {"limits": {"nofile": (64, 4096)}}, "note", "enough for about 2 workers; ulimit -n 4096"),
        ("container", {"limits": {"nofile": (64, -1)}}, "note", "ulimit -n unlimited would allow more"),
        ("container", {"limits": {"nofile": (32, 32)}}, "missing", "enough for about 0 workers"),
        ("container", {"seccomp": 2}, "ok", "a seccomp filter is in force"),
        ("container", {"seccomp": 1}, "missing", "strict seccomp"),
        ("container", {"proc": False}, "note", "there is no /proc"),
        ("container", {"dev_shm": None}, "ok", "there is no /dev/shm: a pool needs none"),
        ("container", {"dev_shm": 4096}, "note", "/dev/shm has 4.0 KB left"),
        ("container", {"pid": 1}, "note", "this process is pid 1"),
        ("container", {"subreaper": True}, "note", "this process is a subreaper"),
    ],
)  # fmt: skip
def test_what_follows(part, changes, level, text):
    found = changed(part, **changes)
    assert [(finding.topic, finding.level) for finding in found] == [(part, level)]
    assert text in found[0].text
    assert rules.is_missing_something(findings_of(part, **changes)) is (level == "missing")


@pytest.mark.parametrize(("quota", "workers"), [(1.5, 2), (0.1, 1), (2.0, 2), (3.9, 4)])
def test_a_default_that_follows_from_the_quota_needs_no_advice(quota, workers):
    found = changed("container", cpu_quota=quota, default_workers=workers)
    assert [finding.level for finding in found if "CPUs may be used" in finding.text] == ["ok"]
    assert not [finding for finding in found if "max_workers" in finding.text]


def test_what_is_not_known_is_not_judged():
    container = Container(8, 4)
    found = rules.findings(replace(GOOD, container=container))
    assert {finding.level for finding in found} == {"ok"}


def test_a_step_of_the_self_test_that_fails_is_something_missing():
    facts = replace(GOOD, steps=(Step("timeout", False, 10.0, "it ran on"),))
    found = rules.findings(facts)
    assert rules.is_missing_something(found)
    assert report.of_machine(facts).endswith("pools do not work here as they should: timeout: it ran on")
    assert json.loads(report.of_machine_as_json(facts))["ok"] is False


def test_the_report_has_every_finding():
    text = report.of_machine(GOOD)
    for finding in rules.findings(GOOD):
        assert finding.text in text
    assert text.endswith("everything that a pool needs is here")


@pytest.mark.parametrize(
    ("size", "text"), [(None, "?"), (0, "0 bytes"), (2048, "2.0 KB"), (5 << 20, "5.0 MB"), (500 << 20, "500 MB")]
)
def test_sizes(size, text):
    assert rules.size_text(size) == text


# ---- cgroups -----------------------------------------------------------------------------------------------


def tree(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return reading.Cgroups(str(folder))


def limits(groups):
    pids = ("pids", "pids.max", "pids.max")
    memory = ("memory", "memory.max", "memory.limit_in_bytes")
    return (
        groups.version,
        groups.cpu_quota(),
        groups.least(*pids),
        groups.of_limit(*pids, "pids.current", "pids.current"),
        groups.least(*memory),
        groups.of_limit(*memory, "memory.current", "memory.usage_in_bytes"),
    )


def test_v2_the_least_limit_above_holds(tmp_path):
    groups = tree(tmp_path, {
        "proc/self/cgroup": "0::/app/inner\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory pids",
        "sys/fs/cgroup/app/cpu.max": "150000 100000\n",
        "sys/fs/cgroup/app/pids.max": "100\n", "sys/fs/cgroup/app/pids.current": "40\n",
        "sys/fs/cgroup/app/memory.max": "max\n",
        "sys/fs/cgroup/app/inner/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/app/inner/pids.max": "max\n", "sys/fs/cgroup/app/inner/pids.current": "3\n",
        "sys/fs/cgroup/app/inner/memory.max": "1000\n", "sys/fs/cgroup/app/inner/memory.current": "400\n",
    })  # fmt: skip
    assert limits(groups) == ("v2", 1.5, 100, 40, 1000, 400)


def test_v2_in_a_container_that_sees_only_its_own(tmp_path):
    groups = tree(tmp_path, {
        "proc/self/cgroup": "0::/../../outside\n",
        "sys/fs/cgroup/cgroup.controllers": "",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/pids.max": "max\n", "sys/fs/cgroup/pids.current": "3\n",
    })  # fmt: skip
    assert limits(groups) == ("v2", 0.5, None, 3, None, None)


def test_v1(tmp_path):
    groups = tree(tmp_path, {
        "proc/self/cgroup": "4:cpu,cpuacct:/docker/abc\n3:memory:/docker/abc\n2:pids:/docker/abc\n0::/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes": "700\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "5000\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "900\n",
        "sys/fs/cgroup/pids/docker/abc/pids.max": "max\n", "sys/fs/cgroup/pids/docker/abc/pids.current": "9\n",
    })  # fmt: skip
    assert limits(groups) == ("v1", 2.0, None, 9, 5000, 900)


def test_v1_without_a_quota(tmp_path):
    groups = tree(tmp_path, {
        "proc/self/cgroup": "4:cpu:/\n",
        "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
    })  # fmt: skip
    assert limits(groups) == ("v1", None, None, None, None, None)


def test_no_cgroup_and_no_proc(tmp_path):
    assert limits(reading.Cgroups(str(tmp_path))) == (None, None, None, None, None, None)
    container = reading.container(str(tmp_path))
    assert (container.proc, container.seccomp, container.dev_shm, container.cgroup) == (False, None, None, None)
