"""Which program is chosen for a template: each rule by itself, with files that are no programs at all."""

from __future__ import annotations

import errno
import multiprocessing.spawn
import os
import sys
import sysconfig
from types import SimpleNamespace

import pytest

from pidfdpool import TemplateError
from pidfdpool.template import interpreter
from pidfdpool.template.interpreter import UnusableInterpreter

VERSION = "{}.{}".format(*sys.version_info)
OTHER_MINOR = f"{sys.version_info.major}.{sys.version_info.minor + 1}"
OWN = sys.executable


def make_program(path, mode=0o755):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(mode)
    return str(path)


@pytest.fixture
def default(monkeypatch):
    """Return a function that sets what `multiprocessing` takes for the program, as its own default or by a user."""

    def set_default(program):
        monkeypatch.setattr(multiprocessing.spawn, "_python_exe", program)

    set_default(os.fsencode(OWN))
    return set_default


@pytest.fixture
def guest(tmp_path, monkeypatch, default):
    """Have this process look like a server that has Python inside."""
    server = make_program(tmp_path / "sbin" / "server")
    monkeypatch.setattr(sys, "executable", server)
    default(os.fsencode(server))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    monkeypatch.setattr(sys, "exec_prefix", str(tmp_path / "exec"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "base"))
    monkeypatch.setattr(sys, "base_exec_prefix", str(tmp_path / "base_exec"))
    monkeypatch.setattr(sys, "_base_executable", str(tmp_path / "sbin" / "base"))
    monkeypatch.setitem(sysconfig.get_config_vars(), "BINDIR", str(tmp_path / "built"))
    return tmp_path


# ---- whether it is certain ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("default")
def test_a_host_that_is_a_python_needs_no_search():
    assert interpreter.certain() == OWN


@pytest.mark.usefixtures("default")
def test_where_it_is_certain_no_other_program_is_tried(monkeypatch, tmp_path):
    other = make_program(tmp_path / "python3")
    monkeypatch.setattr(interpreter, "_candidates", lambda: iter([other]))
    assert interpreter._other_candidates(OWN) == []
    assert interpreter._other_candidates("another") == [other]


@pytest.mark.parametrize("why", ["named by the user", "frozen", "relative", "empty", "unknown", "another program"])
def test_where_anything_is_unusual_it_has_to_be_found_out(why, default, monkeypatch, tmp_path):
    if why == "named by the user":
        default(os.fsencode(make_program(tmp_path / "python3")))
    elif why == "frozen":
        monkeypatch.setattr(sys, "frozen", True, raising=False)
    else:
        found = {
            "relative": os.path.relpath(OWN),
            "empty": "",
            "unknown": None,
            "another program": make_program(tmp_path / f"python{VERSION}"),
        }[why]
        monkeypatch.setattr(sys, "executable", found)
        default(found)
    assert interpreter.certain() is None


def test_this_program_is_not_certain_under_a_name_that_is_no_pythons(default, monkeypatch, tmp_path):
    """As a server that embeds Python: this process runs it, and started again it would serve again."""
    server = str(tmp_path / "server")
    monkeypatch.setattr(interpreter, "_is_this_program", lambda program: program == server)
    make_program(tmp_path / "server")
    monkeypatch.setattr(sys, "executable", server)
    default(server)
    assert interpreter.certain() is None


# ---- what the user has named -------------------------------------------------------------------------------------


def test_where_multiprocessing_was_not_asked_nobody_has_named_a_program(monkeypatch):
    monkeypatch.setitem(sys.modules, "multiprocessing.spawn", None)
    assert interpreter._set_by_user() is None
    assert interpreter.find() == OWN


@pytest.mark.parametrize("kind", [os.fsencode, str])
def test_a_program_that_the_user_names_is_taken_as_text_or_bytes(default, tmp_path, kind):
    default(kind(str(tmp_path / "anything")))
    assert interpreter.find() == str(tmp_path / "anything")


def test_another_name_of_this_python_is_taken_if_the_user_names_it(default, tmp_path):
    """A virtual environment, perhaps: the same program in another folder has other packages."""
    link = tmp_path / "python"
    link.symlink_to(os.path.realpath(OWN))
    default(os.fsencode(str(link)))
    assert interpreter.find() == str(link)


def test_in_a_frozen_program_its_own_name_is_the_default_and_no_choice(default, monkeypatch, tmp_path):
    link = tmp_path / "python"
    link.symlink_to(os.path.realpath(OWN))
    default(os.fsencode(str(link)))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(TemplateError, match="is frozen"):
        interpreter.find()


def test_the_name_of_this_program_before_it_has_corrected_it_is_no_choice(default, monkeypatch, tmp_path):
    server = make_program(tmp_path / "server")
    monkeypatch.setattr(interpreter, "_is_this_program", {server: True, OWN: True}.get)
    default(os.fsencode(server))
    assert interpreter.find() == OWN


def test_in_a_virtual_environment_the_user_may_name_its_base(default, monkeypatch, tmp_path):
    base = make_program(tmp_path / "base" / "python3")
    monkeypatch.setattr(sys, "_base_executable", base)
    default(os.fsencode(base))
    assert interpreter.find() == base


def test_a_guest_s_base_is_no_choice_of_the_users(guest, default):
    default(os.fsencode(sys._base_executable))
    with pytest.raises(TemplateError, match="there is no Python"):
        interpreter.find()


# ---- whether a file is a Python of this version ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "usable"),
    [
        (f"python{VERSION}.4", True),
        (f"python{VERSION}t-debug", True),
        (f"pypy{VERSION}", True),
        ("pypy", True),
        ("pythonw", True),
        (f"python{OTHER_MINOR}", False),
        (f"python{VERSION}1", False),
        ("python4", False),
        (f"python{VERSION}-config", False),
        (f"xpython{VERSION}", False),
        ("Python", False),
    ],
)
def test_the_whole_name_has_to_be_that_of_a_python_of_this_version(name, usable, tmp_path):
    assert interpreter.is_usable(make_program(tmp_path / name)) is usable


def test_one_name_of_a_python_is_enough_but_not_if_the_other_tells_another_version(tmp_path):
    ours = make_program(tmp_path / f"python{VERSION}x" / f"python{VERSION}d")
    other = make_program(tmp_path / f"python{OTHER_MINOR}")
    for name, target, usable in (("tool", ours, True), (f"python{VERSION}", other, False), ("tool2", other, False)):
        (tmp_path / name).symlink_to(target)
        assert interpreter.is_usable(str(tmp_path / name)) is usable, name


@pytest.mark.parametrize(
    ("effective", "real", "usable"), [(True, False, True), (False, True, True), (False, False, False)]
)
def test_a_program_may_be_run_by_the_effective_user_or_where_that_cannot_be_asked_by_the_real_one(
    monkeypatch, tmp_path, effective, real, usable
):
    path, asked = make_program(tmp_path / "python3"), []

    def access(program, mode, *, effective_ids=False):
        asked.append((program, mode))
        return effective if effective_ids else real

    monkeypatch.setattr(interpreter.os, "access", access)
    assert interpreter.is_usable(path) is usable
    assert set(asked) == {(path, os.X_OK)}


@pytest.mark.parametrize("program", ["", None, "/nowhere/python3"])
def test_a_name_without_a_file_is_not_this_program(program):
    assert interpreter._is_this_program(program) is False
    assert interpreter._is_this_program(OWN) is True


# ---- where it is looked for --------------------------------------------------------------------------------------


def names():
    return [f"python{VERSION}{sys.abiflags}", f"python{VERSION}", "python3", "python"]


def in_order(*folders):
    return list(dict.fromkeys(f"{folder}/{name}" for folder in folders for name in names()))


def test_candidates_come_in_the_order_of_how_likely_they_are(guest):
    """The environment, its base, where this Python was built for; the program that is known; the base's folder."""
    installed = in_order(*(guest / name / "bin" for name in ("venv", "exec", "base", "base_exec")), guest / "built")
    assert list(interpreter._candidates()) == [*installed, sys.executable, *in_order(guest / "sbin")]


@pytest.mark.parametrize("how", ["in the folder", "by a link"])
def test_a_program_that_lies_where_this_python_was_installed_comes_first_and_once(guest, monkeypatch, how):
    program = guest / "base" / "bin" / "python3"
    make_program(program)
    if how == "by a link":
        (guest / "link").symlink_to(program)
        program = guest / "link"
    monkeypatch.setattr(sys, "executable", str(program))
    found = list(interpreter._candidates())
    assert found[0] == str(program)
    assert found.count(str(program)) == (1 if how == "by a link" else 2), "again under the name of its folder only"


@pytest.mark.parametrize("unknown", ["", None])
def test_a_guest_that_knows_neither_its_program_nor_a_base_looks_in_its_prefixes(guest, monkeypatch, unknown):
    monkeypatch.setattr(sys, "executable", unknown)
    monkeypatch.setattr(sys, "_base_executable", unknown)
    monkeypatch.setitem(sysconfig.get_config_vars(), "BINDIR", None)
    folders = (guest / name / "bin" for name in ("venv", "exec", "base", "base_exec"))
    assert list(interpreter._candidates()) == in_order(*folders)


def test_a_guest_that_can_read_no_file_of_pythons_looks_in_its_prefixes(guest, monkeypatch):
    """It has changed its root directory, perhaps."""
    monkeypatch.setitem(sys.modules, "sysconfig", None)
    assert str(guest / "built") not in interpreter._folders()
    assert next(iter(interpreter._folders())) == str(guest / "venv" / "bin")


def test_the_error_of_a_guest_that_knows_no_place_says_so(guest, monkeypatch):
    monkeypatch.setattr(interpreter, "_candidates", lambda: iter(()))
    with pytest.raises(TemplateError, match=f"no Python {VERSION} .*: no place is known"):
        interpreter.find()


def test_a_frozen_program_without_a_name_is_this_program(default, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", "")
    default(None)
    with pytest.raises(TemplateError, match="this program is frozen"):
        interpreter.find()


def test_what_the_user_has_named_is_the_only_one_that_is_tried(guest, default):
    make_program(guest / "venv" / "bin" / "python3")
    named = str(guest / "anything")
    default(named)
    assert interpreter._other_candidates(named) == []
    assert interpreter._other_candidates("another") == [str(guest / "venv" / "bin" / "python3")]


# ---- trying them -------------------------------------------------------------------------------------------------


@pytest.fixture
def programs(monkeypatch):
    """Return a function that says which programs there are to be tried."""

    def set_programs(first, *others):
        monkeypatch.setattr(interpreter, "find", lambda: first)
        monkeypatch.setattr(interpreter, "_other_candidates", lambda found: list(others) if found == first else [])

    return set_programs


def failing(told):
    """Return a start that raises what is said for each program, and gives what is no error."""
    tried = []

    def start(program, is_last):
        tried.append((program, is_last))
        if isinstance(told[program], BaseException):
            raise told[program]
        return told[program]

    return start, tried


def test_the_first_program_that_works_is_the_last_that_is_started(programs):
    programs("a", "b", "c")
    start, tried = failing({"a": UnusableInterpreter("a is none"), "b": "started", "c": "another"})
    assert interpreter.start_first_usable(start) == "started"
    assert tried == [("a", False), ("b", False)]


def test_what_each_program_did_is_told_with_the_last_as_the_cause(programs):
    programs("a", "b")
    last = UnusableInterpreter("b stayed silent")
    start, _ = failing({"a": UnusableInterpreter("a is none"), "b": last})
    with pytest.raises(TemplateError) as caught:
        interpreter.start_first_usable(start)
    told = f"none of the programs that may be Python {VERSION} can be used: a is none; b stayed silent. Its standard"
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("name one with multiprocessing.set_executable().")
    assert caught.value.__cause__ is last


def test_of_an_only_program_what_it_did_is_told(programs):
    programs("a")
    start, tried = failing({"a": UnusableInterpreter("a is none")})
    with pytest.raises(TemplateError, match="^a is none. Its standard error may tell why"):
        interpreter.start_first_usable(start)
    assert tried == [("a", True)]


@pytest.mark.parametrize("name", ["ENOENT", "EACCES", "ENOTDIR", "ELOOP", "ENOEXEC", "ETXTBSY"])
def test_an_error_that_is_about_one_program_has_the_next_one_tried(programs, name):
    number = getattr(errno, name)
    programs("a", "b")
    start, _ = failing({"a": OSError(number, os.strerror(number)), "b": "started"})
    assert interpreter.start_first_usable(start) == "started"
    start, _ = failing({"a": UnusableInterpreter("a is none"), "b": OSError(number, os.strerror(number))})
    with pytest.raises(TemplateError, match=f"a is none; b: {os.strerror(number)}"):
        interpreter.start_first_usable(start)


@pytest.mark.parametrize("name", ["EAGAIN", "ENOMEM", "EMFILE", "EPERM"])
def test_an_error_that_is_about_the_system_is_raised_at_once(programs, name):
    number = getattr(errno, name)
    programs("a", "b")
    start, tried = failing({"a": OSError(number, os.strerror(number)), "b": "started"})
    with pytest.raises(OSError, match=os.strerror(number)):
        interpreter.start_first_usable(start)
    assert tried == [("a", False)]


def test_what_a_signal_handler_raises_is_raised_at_once(programs):
    programs("a", "b")
    start, tried = failing({"a": KeyboardInterrupt(), "b": "started"})
    with pytest.raises(KeyboardInterrupt):
        interpreter.start_first_usable(start)
    assert tried == [("a", False)]


def test_the_version_is_the_one_that_runs_here(monkeypatch):
    monkeypatch.setattr(interpreter, "sys", SimpleNamespace(version_info=(3, 99, 1)))
    assert interpreter._version() == "3.99"
