"""What the kernel tells of cgroups, line by line, and the folders that follow from that."""

from __future__ import annotations

import os

import pytest

from pidfdpool.process import cgroups
from pidfdpool.process.cgroups import V1, V2, Mount
from tests.conditions import open_descriptors


def mount(root="/", point="/sys/fs/cgroup", version=V2, *controllers):
    return Mount(version, frozenset(controllers), root, point)


@pytest.mark.parametrize(
    ("root", "path", "folders"),
    [
        ("/", "/", ["/p"]),
        ("/", "/a/b", ["/p/a/b", "/p/a", "/p"]),
        ("/a", "/a", ["/p"]),
        ("/a", "/a/b", ["/p/b", "/p"]),
        ("/a/", "/a/b", ["/p/b", "/p"]),
        ("/a", "/ab", None),
        ("/a", "/", None),
        ("/", "/../a", None),
        ("/..", "/a", None),
        ("/../a", "/../a", None),
        ("/", "/a..b", ["/p/a..b", "/p"]),
        ("/", "//a//b", ["/p/a/b", "/p/a", "/p"]),
    ],
)
def test_folders_are_those_of_a_cgroup_and_of_all_above_it_up_to_the_root_of_the_mount(root, path, folders):
    for point in ("/p", "/p/"):
        assert mount(root, point).folders(path) == folders


@pytest.mark.parametrize(
    ("mounted", "asked", "has"),
    [
        (mount(), (V2, "cpu"), True),
        (mount(), (V1, "cpu"), False),
        (mount("/", "/p", V1, "cpu", "cpuacct"), (V1, "cpuacct"), True),
        (mount("/", "/p", V1, "cpu"), (V1, "memory"), False),
        (mount("/", "/p", V1, "cpu"), (V2, "cpu"), False),
    ],
)
def test_a_mount_has_a_controller_of_its_own_version(mounted, asked, has):
    assert mounted.has(*asked) is has


def test_memberships_are_told_by_lines_of_three_fields():
    text = "12:cpu,cpuacct:/a:b\n1:name=systemd:/c\n0::/d\n2::/e\n0:\nnonsense\n\n"
    assert list(cgroups.memberships(text)) == [
        (V1, {"cpu", "cpuacct"}, "/a:b"),
        (V1, {"name=systemd"}, "/c"),
        (V2, frozenset(), "/d"),
    ]


LINES = """\
23 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 23 0:26 /r /my\\040point rw shared:4 - cgroup2 cgroup2 rw,nsdelegate
31 23 0:27 / /a rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /b rw - cgroupfs none rw,cpu
33 23 0:29 - cgroup cgroup rw,cpu
34 23 0:30 / - cgroup2 none rw
35 23 0:31 / /c - cgroup2 none
36 23 0:32 / /d - cgroup none rw,memory
"""


def test_mounts_are_told_by_lines_with_a_type_of_cgroups():
    found = [(each.version, each.controllers, each.root, each.point) for each in cgroups.mounts(LINES)]
    assert found == [
        (V2, frozenset(), "/r", "/my point"),
        (V1, {"rw", "cpu", "cpuacct"}, "/", "/a"),
        (V1, {"rw", "memory"}, "/", "/d"),
    ]


def test_folders_come_for_each_hierarchy_that_has_the_controller():
    membership = "4:cpu:/x\n5:memory:/y\n0::/r/z\n"
    assert list(cgroups.folders_of("cpu", membership, LINES)) == [
        (V1, ["/a/x", "/a"]),
        (V2, ["/my point/z", "/my point"]),
    ]
    assert list(cgroups.folders_of("memory", membership, LINES)) == [
        (V1, ["/d/y", "/d"]),
        (V2, ["/my point/z", "/my point"]),
    ]


def test_a_path_that_is_valid_elsewhere_only_stands_for_what_is_mounted_first():
    lines = LINES.replace("- cgroup none rw,memory", "- cgroup2 none rw")
    assert list(cgroups.folders_of("cpu", "0::/elsewhere\n", lines)) == [(V2, ["/d/elsewhere", "/d"])]
    assert list(cgroups.folders_of("cpu", "0::/../elsewhere\n", lines)) == [(V2, ["/my point"])]
    assert list(cgroups.folders_of("cpu", "0::/../elsewhere\n", "")) == []


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("plain", "plain"),
        (r"a\040b\011c\012d\134e", "a b\tc\nd\\e"),
        (r"\134040", r"\040"),
    ],
)
def test_what_is_escaped_is_read_as_it_was(field, path):
    assert cgroups._unescaped(field) == path


def test_files_are_read_to_their_end_and_what_cannot_be_read_is_empty(tmp_path):
    before = open_descriptors()
    path = tmp_path / "file"
    path.write_bytes(b"x" * (cgroups._PART * 2 + 5) + b"\xff")
    assert cgroups.read(str(path)) == "x" * (cgroups._PART * 2 + 5) + os.fsdecode(b"\xff")
    assert cgroups.read(str(tmp_path / "none")) == ""
    assert cgroups.read(str(tmp_path)) == "", "a folder can be opened, and not read"
    assert open_descriptors() == before
