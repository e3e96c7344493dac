"""How many CPUs a process may use, on machines that are folders: as systemd, Docker and Kubernetes lay them out."""

from __future__ import annotations

import os
import sys

import pytest

from pidfdpool import PidfdPoolExecutor
from pidfdpool.process import cgroups, cpus
from tests.conditions import run_python

# Lines of mountinfo as kernels write them.
UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
TMPFS = "31 23 0:27 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755\n"
CPU = "36 31 0:32 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:17 - cgroup cgroup rw,cpu,cpuacct\n"
MEMORY = "37 31 0:33 {root} /sys/fs/cgroup/memory rw shared:18 - cgroup cgroup rw,memory\n"
ROOT_DISK = "23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"


class Machine:
    """A folder with what this process would find in /proc and /sys."""

    def __init__(self, folder) -> None:
        self.root = str(folder)

    def put(self, path: str, text: str) -> None:
        whole = self.root + path
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        with open(whole, "w") as file:
            file.write(text)

    def told(self, membership: str, *mounts: str) -> Machine:
        self.put("/proc/self/cgroup", membership)
        self.put("/proc/self/mountinfo", "".join((ROOT_DISK, *mounts)))
        cpus._known = ("", "", [])  # another machine than before
        return self

    def v2(self, folder: str, text: str) -> None:
        self.put(f"/sys/fs/cgroup{folder}/cpu.max", text)

    def v1(self, folder: str, quota: int, period: int = 100_000) -> None:
        self.put(f"/sys/fs/cgroup/cpu,cpuacct{folder}/cpu.cfs_quota_us", f"{quota}\n")
        self.put(f"/sys/fs/cgroup/cpu,cpuacct{folder}/cpu.cfs_period_us", f"{period}\n")

    def quota(self) -> int | None:
        return cpus.cpu_quota(self.root)


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("max 100000\n", None),
        ("100000 100000\n", 1),
        ("50000 100000\n", 1),
        ("150000 100000\n", 2),
        ("200000 100000\n", 2),
        ("200001 100000\n", 3),
        ("1000 1000000\n", 1),
        ("400000 50000\n", 8),
        ("", None),
        ("max\n", None),
        ("0 100000\n", None),
        ("100000 0\n", None),
        ("many 100000\n", None),
        ("-1 100000\n", None),
    ],
)
def test_a_quota_is_rounded_up_to_whole_cpus_and_nonsense_is_no_limit(machine, text, count):
    machine.told("0::/\n", UNIFIED).v2("", text)
    assert machine.quota() == count


def test_systemd_limits_a_slice_above_the_service(machine):
    machine.told("0::/system.slice/web.service\n", UNIFIED)
    machine.v2("/system.slice/web.service", "max 100000\n")
    assert machine.quota() is None
    machine.v2("/system.slice", "300000 100000\n")
    assert machine.quota() == 3
    machine.v2("/system.slice/web.service", "800000 100000\n")
    assert machine.quota() == 3, "the smallest of all of them"
    machine.v2("/system.slice/web.service", "200000 100000\n")
    assert machine.quota() == 2


def test_a_cgroup_beside_is_not_looked_at(machine):
    machine.told("0::/system.slice/web.service\n", UNIFIED)
    machine.v2("/system.slice/web.service-2", "100000 100000\n")
    machine.v2("/user.slice", "100000 100000\n")
    machine.v2("/system.slice/web.service/inner", "100000 100000\n")
    assert machine.quota() is None


def test_docker_with_version_2_shows_the_container_its_own_cgroup_as_the_root(machine):
    machine.told("0::/\n", UNIFIED).v2("", "250000 100000\n")
    assert machine.quota() == 3


def test_a_container_that_sees_the_path_outside_has_its_cgroup_mounted(machine):
    machine.told("0::/docker/0123abcd\n", UNIFIED.replace(" / /sys", " /docker/0123abcd /sys"))
    machine.v2("", "200000 100000\n")
    assert machine.quota() == 2


def test_a_container_whose_mount_was_made_elsewhere_reads_what_is_mounted(machine):
    machine.told("0::/\n", UNIFIED.replace(" / /sys", " /../../other /sys")).v2("", "200000 100000\n")
    assert machine.quota() == 2
    machine.told("0::/../sibling\n", UNIFIED)
    machine.put("/sys/fs/sibling/cpu.max", "100000 100000\n")
    assert machine.quota() == 2


def test_docker_with_version_1(machine):
    path = "/docker/0123abcd"
    machine.told(
        f"12:memory:{path}\n5:cpu,cpuacct:{path}\n1:name=systemd:{path}\n0::/system.slice/containerd.service\n",
        TMPFS,
        CPU.format(root=path),
        MEMORY.format(root=path),
    )
    assert machine.quota() is None, "nothing is readable"
    machine.v1("", -1)
    assert machine.quota() is None
    machine.v1("", 150_000)
    assert machine.quota() == 2


def test_kubernetes_with_version_1_limits_the_pod_and_the_container(machine):
    pod = "/kubepods/burstable/pod01234567-89ab-cdef"
    machine.told(f"4:cpuacct,cpu:{pod}/container\n", TMPFS, CPU.format(root="/"))
    machine.v1(f"{pod}/container", 400_000)
    machine.v1(pod, 250_000)
    machine.v1("/kubepods/burstable", -1)
    assert machine.quota() == 3


def test_kubernetes_with_version_2_seen_from_the_node(machine):
    pod = "/kubepods.slice/kubepods-pod0123.slice"
    machine.told(f"0::{pod}/cri-containerd-4567.scope\n", UNIFIED)
    machine.v2(f"{pod}/cri-containerd-4567.scope", "500000 100000\n")
    machine.v2(pod, "max 100000\n")
    assert machine.quota() == 5


def test_a_hybrid_has_its_cpus_in_version_1(machine):
    hybrid = UNIFIED.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
    for membership in ("4:cpu,cpuacct:/jobs\n0::/init.scope\n", "0::/init.scope\n4:cpu,cpuacct:/jobs\n"):
        machine.told(membership, TMPFS, hybrid, CPU.format(root="/"))
        machine.v1("/jobs", 200_000)
        assert machine.quota() == 2


def test_a_mount_point_may_have_a_space(machine):
    machine.told("0::/\n", UNIFIED.replace("/sys/fs/cgroup", r"/my\040cgroups\134x"))
    machine.put(r"/my cgroups\x/cpu.max", "300000 100000\n")
    assert machine.quota() == 3


def test_controllers_that_only_begin_alike_are_others(machine):
    machine.told("5:cpuset:/a\n6:cpuacct:/a\n", TMPFS, CPU.format(root="/").replace("rw,cpu,", "rw,cpuset,"))
    machine.v1("/a", 100_000)
    assert machine.quota() is None


def test_a_process_that_was_moved_to_another_cgroup_has_its_quota(machine):
    machine.told("0::/a\n", UNIFIED)
    machine.v2("/a", "300000 100000\n")
    machine.v2("/b", "200000 100000\n")
    assert machine.quota() == 3
    machine.v2("/a", "400000 100000\n")
    assert machine.quota() == 4, "a quota may be changed at any time"
    machine.put("/proc/self/cgroup", "0::/b\n")
    assert machine.quota() == 2


@pytest.mark.parametrize("membership", ["", "nonsense\n", "0:\n", "::\n", "0::\n", "4:cpu:/\n"])
@pytest.mark.parametrize("mounts", ["", "nonsense\n", "1 2 3 - cgroup2\n", " - \n", UNIFIED[:20]])
def test_where_nothing_can_be_read_there_is_no_limit(machine, membership, mounts):
    machine.told(membership, mounts)
    assert machine.quota() is None


def test_without_proc_the_affinity_counts(machine):
    assert machine.quota() is None
    assert cpus.usable(machine.root) == len(os.sched_getaffinity(0))


def test_the_smaller_of_affinity_and_quota_counts(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(cpus, "_told_to_python", lambda: None)
    machine.told("0::/\n", UNIFIED).v2("", "250000 100000\n")
    assert cpus.usable(machine.root) == 3
    machine.v2("", "1600000 100000\n")
    assert cpus.usable(machine.root) == 8
    machine.v2("", "1000 100000\n")
    assert cpus.usable(machine.root) == 1


def test_who_may_not_ask_for_the_affinity_gets_the_number_of_cpus(machine, monkeypatch):
    def refuse(_pid):
        raise OSError

    monkeypatch.setattr(cpus, "_told_to_python", lambda: None)
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(os, "sched_getaffinity", refuse)
    assert cpus.usable(machine.root) == 5
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cpus.usable(machine.root) == 5
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cpus.usable(machine.root) == 1


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python takes no number of CPUs before 3.13")
@pytest.mark.parametrize("told", [{"flags": ["-X", "cpu_count=7"]}, {"env": {"PYTHON_CPU_COUNT": "7"}}])
def test_who_has_told_python_a_number_gets_that(told):
    code = "import pidfdpool, os; print(pidfdpool.PidfdPoolExecutor()._max_workers, os.process_cpu_count())"
    assert run_python(code, **told).stdout.split() == ["7", "7"]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python takes no number of CPUs before 3.13")
def test_a_python_that_is_to_ignore_the_environment_does():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import pidfdpool.process.cpus as c; print(c._told_to_python())"
    )
    here = os.path.dirname(os.path.dirname(cgroups.__file__))
    ran = run_python(code, os.path.dirname(here), flags=["-I"], env={"PYTHON_CPU_COUNT": "7"})
    assert ran.stdout.strip() == "None"


def test_a_pool_has_as_many_workers_by_default(monkeypatch):
    monkeypatch.setattr(cpus, "usable", lambda: 3)
    assert PidfdPoolExecutor()._max_workers == PidfdPoolExecutor(None)._max_workers == 3
    monkeypatch.setattr(cpus, "usable", lambda: 100_000)
    assert PidfdPoolExecutor()._max_workers == 65535


def test_this_host_can_be_asked():
    assert 1 <= cpus.usable() <= max(1, len(os.sched_getaffinity(0)))
