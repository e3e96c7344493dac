"""Which program a template is started with, where the host is not simply a Python: never the host's own program."""

from __future__ import annotations

import errno
import multiprocessing.spawn
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap

import pytest

from pidfdpool import TemplateError
from pidfdpool.template import interpreter
from tests.conditions import ROOT, run_python

VERSION = "{}.{}".format(*sys.version_info)


def make_program(path, text="#!/bin/sh\nexit 1\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def guest(tmp_path, monkeypatch):
    """Have this process look like a server that has Python inside, with nothing but what a test puts in place."""
    server = make_program(tmp_path / "sbin" / "server")
    monkeypatch.setattr(sys, "executable", server)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(server))
    for name in ("prefix", "exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "venv"))
    for name in ("base_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "base"))
    monkeypatch.setattr(sys, "_base_executable", server)
    monkeypatch.setitem(sysconfig.get_config_vars(), "BINDIR", str(tmp_path / "built" / "bin"))
    return tmp_path


def test_a_host_that_is_a_python_is_started_again():
    assert interpreter.find() == sys.executable


def test_looking_costs_a_host_that_is_a_python_no_import():
    script = f"""
    import sys
    sys.path[:] = {[ROOT, *sys.path]!r}
    from pidfdpool.template import client
    before = set(sys.modules)
    client.interpreter.find()
    print(sorted(set(sys.modules) - before))
    """
    done = run_python(script, flags=["-S"])
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    "name",
    [
        "python",
        "python3",
        f"python{VERSION}",
        f"python{VERSION}t",
        f"python{VERSION}d",
        f"python{VERSION}-dbg",
        "pypy3",
    ],
)
def test_a_name_of_this_version_is_usable(name, tmp_path):
    assert interpreter.is_usable(make_program(tmp_path / name))


@pytest.mark.parametrize(
    "name",
    ["uwsgi", "httpd", "ipython", "python-app", "pythonize-it", "python3-app", "python2.7", "python2", "python3.99"],
)
def test_another_name_or_version_is_not(name, tmp_path):
    assert not interpreter.is_usable(make_program(tmp_path / name))


def test_a_link_counts_by_both_of_its_names(tmp_path):
    ours = make_program(tmp_path / f"python{VERSION}")
    other = make_program(tmp_path / "python3.99")
    server = make_program(tmp_path / "server")
    for name, target, usable in [
        ("python", ours, True),
        ("hostess", ours, True),
        ("python3", other, False),
        ("steward", other, False),
        ("butler", server, False),
    ]:
        os.symlink(target, tmp_path / name)
        assert interpreter.is_usable(str(tmp_path / name)) is usable, name


def test_what_is_no_program_is_not_usable(tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python3").write_text("not executable")
    for path in (str(tmp_path / "python"), str(tmp_path / "python3"), str(tmp_path / f"python{VERSION}"), "", None):
        assert not interpreter.is_usable(path)


def test_a_guest_finds_its_virtual_environment_before_what_that_was_made_from(guest):
    built = make_program(guest / "built" / "bin" / f"python{VERSION}")
    assert interpreter.find() == built
    base = make_program(guest / "base" / "bin" / "python3")
    assert interpreter.find() == base
    own = make_program(guest / "venv" / "bin" / "python")
    assert interpreter.find() == own


@pytest.mark.parametrize("told", ["", None])
def test_a_guest_that_does_not_know_its_program_finds_its_python(guest, told, monkeypatch):
    monkeypatch.setattr(sys, "executable", told)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", told)
    own = make_program(guest / "venv" / "bin" / f"python{VERSION}")
    assert interpreter.find() == own


def test_the_first_python_in_the_path_is_not_taken_for_this_one(guest, monkeypatch):
    make_program(guest / "usr" / "python3.99")
    os.symlink("python3.99", guest / "usr" / "python3")
    monkeypatch.setattr(sys, "executable", str(guest / "usr" / "python3"))
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(sys.executable))
    own = make_program(guest / "venv" / "bin" / f"python{VERSION}")
    assert interpreter.find() == own


def test_a_python_from_elsewhere_comes_after_those_where_this_one_was_installed(guest, monkeypatch):
    """It may be a script that starts one Python or another, depending on the directory."""
    shim = make_program(guest / "shims" / "python3")
    monkeypatch.setattr(sys, "executable", shim)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(shim))
    assert interpreter.find() == shim
    own = make_program(guest / "base" / "bin" / "python3")
    assert interpreter.find() == own
    (guest / "elsewhere").mkdir()
    link = guest / "elsewhere" / "python3"
    os.symlink(own, link)
    monkeypatch.setattr(sys, "executable", str(link))
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(link))
    assert interpreter.find() == str(link), "it leads to where this Python was installed"


def test_the_first_one_in_the_path_is_not_taken_for_one_that_the_user_has_named(guest, monkeypatch):
    """The name that it had then is what multiprocessing remembers, and the program corrects it later."""
    shim = make_program(guest / "shims" / "python3")
    monkeypatch.setattr(sys, "_base_executable", shim)
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", os.fsencode(shim))
    own = make_program(guest / "venv" / "bin" / "python3")
    assert interpreter.find() == own


def test_where_there_is_none_the_error_tells_what_was_tried_and_what_helps(guest):
    with pytest.raises(TemplateError, match=r"Name one with multiprocessing\.set_executable\(\)") as caught:
        interpreter.find()
    told = str(caught.value)
    for path in (guest / "sbin" / "server", guest / "venv" / "bin" / f"python{VERSION}", guest / "base" / "bin"):
        assert str(path) in told
    assert "mp_context='fork'" in told


def test_what_the_user_names_is_taken_whatever_its_name(guest):
    make_program(guest / "venv" / "bin" / "python")
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(str(guest / "anything"))
    try:
        assert interpreter.find() == str(guest / "anything")
    finally:
        multiprocessing.spawn._python_exe = before


def test_a_frozen_host_is_not_started_again_even_if_it_is_called_python(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(TemplateError, match="frozen.*mp_context='fork'"):
        interpreter.find()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/opt/bundled/python")
    assert interpreter.find() == "/opt/bundled/python"


# ---- real programs -----------------------------------------------------------------------------------------

POOL = f"""
import os, sys
sys.path[:0] = [{ROOT!r}, *{sys.path!r}]
from pidfdpool import PidfdPoolExecutor

def runs():
    import os, sys
    return os.readlink(f"/proc/{{os.getpid()}}/exe"), sys.executable, sys.prefix

def ask(**options):
    with PidfdPoolExecutor(1, **options) as pool:
        return pool.submit(runs).result(timeout=30)
"""


@pytest.fixture
def start_as_server(tmp_path):
    """Return a function that runs a script in a program that behaves as Python does, but is called `server`."""
    program = str(tmp_path / "server")
    shutil.copy(os.path.realpath(sys.executable), program)

    def start(code):
        done = subprocess.run(
            [program, "-c", POOL + textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=50,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONHOME": f"{sys.base_prefix}:{sys.base_exec_prefix}"},
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout

    return start


def test_workers_of_a_guest_run_in_its_python(start_as_server):
    start_as_server(
        """
        assert os.path.basename(sys.executable) == "server", sys.executable
        program, executable, prefix = ask()
        assert os.path.basename(program).startswith("python"), program
        assert os.path.basename(executable).startswith("python"), executable
        assert prefix == sys.prefix
        """
    )


def test_a_guest_that_corrects_sys_executable_is_believed(start_as_server):
    start_as_server(
        f"""
        import multiprocessing.spawn  # remembers the program's name from here on
        sys.executable = {sys.executable!r}
        assert ask()[1] == sys.executable
        """
    )


# What a guest may find in sys.prefix, though it bears the name of a Python.
OTHERS = {
    "ends": "#!/bin/sh\nexit 3\n",
    "stays": "#!/bin/sh\nsleep 1000 & wait\n",
    "is_another": f"#!{sys.executable}\n"
    "import sys\nsys.implementation.cache_tag = 'cpython-399'\n"
    "code = sys.argv.index('-c') + 1\nexec(sys.argv[code])\n",
    "cannot_be_run": "",
}
AMONG_OTHERS = """
    from pidfdpool import PoolBroken
    from pidfdpool.template import client, connection
    client.CANDIDATE_TIMEOUT = 5.0  # an interpreter may be slow to start, but not for ever
    connection.LAUNCHER_EXIT_TIMEOUT = 1.0
    sys.executable = ""
    sys.base_prefix = sys.prefix
    sys.exec_prefix, sys.prefix = {folders!r}
    import sysconfig
"""


@pytest.fixture
def others(tmp_path):
    """Return code that sets two prefixes, and the paths of four programs in there: none is the wanted Python."""
    names = ("python", "python3")
    places = [tmp_path / prefix / "bin" / name for prefix in ("one", "two") for name in names]
    programs = [make_program(place, text) for place, text in zip(places, OTHERS.values(), strict=True)]
    return AMONG_OTHERS.format(folders=(str(tmp_path / "one"), str(tmp_path / "two"))), programs


def test_a_program_that_does_not_answer_or_is_another_python_is_followed_by_the_next(others, start_as_server):
    start_as_server(
        others[0]
        + f"""
    from tests.conditions import children
    assert os.path.realpath(ask()[0]) == {os.path.realpath(sys.executable)!r}
    assert not children(os.getpid())
    """
    )


def test_where_none_of_them_answers_the_error_tells_what_each_did(others, start_as_server):
    start_as_server(
        others[0]
        + f"""
    from tests.conditions import children
    sys.base_prefix = sys.base_exec_prefix = sys._base_executable = "/nowhere"
    sysconfig.get_config_vars()["BINDIR"] = "/nowhere"
    try:
        ask()
    except PoolBroken as error:
        told = str(error)
    ends, stays, is_another, cannot_be_run = {others[1]!r}
    for part in (
        f"{{ends}}, started as the pool's template, ended before it was ready: exited with code 3",
        f"{{stays}} did not start a template within 5 s",
        f"{{is_another}} is a Python of another version",
        f"{{cannot_be_run}}: Exec format error",
        "multiprocessing.set_executable()",
    ):
        assert part in told, (part, told)
    assert not children(os.getpid())
    """
    )


@pytest.mark.parametrize("executable", ["/bin/true", "sys.executable", "/no/such/program"])
def test_a_frozen_guest_gets_a_clear_error_at_once_and_can_use_fork(executable, start_as_server):
    start_as_server(
        f"""
        from pidfdpool import PoolBroken, TemplateError
        if {executable!r} != "sys.executable":
            sys.executable = {executable!r}
        sys.frozen = True
        try:
            ask()
        except PoolBroken as error:
            assert isinstance(error.__cause__, TemplateError) and "mp_context='fork'" in str(error), error
        else:
            raise AssertionError("there is no error")
        assert os.path.basename(ask(mp_context="fork")[0]) == "server"
        """
    )


def test_a_frozen_guest_can_name_a_python(start_as_server):
    start_as_server(
        f"""
        import multiprocessing
        sys.frozen = True
        multiprocessing.set_executable({sys.executable!r})
        assert ask()[1] == {sys.executable!r}
        """
    )


EMBEDDING = r"""
#include <Python.h>
int main(int argc, char **argv) {
    Py_Initialize();
    int failed = PyRun_SimpleString(argv[1]);
    return Py_FinalizeEx() || failed;
}
"""


@pytest.fixture(scope="session")
def embedding(tmp_path_factory):
    """Return a program of C that calls Py_Initialize, as most that have Python inside do."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    settings = sysconfig.get_config_vars()
    if compiler is None:
        pytest.skip("there is no C compiler")
    if not settings.get("Py_ENABLE_SHARED"):
        pytest.skip("this Python has no shared library to link a program with")
    if not os.path.exists(os.path.join(settings["INCLUDEPY"], "Python.h")):
        pytest.skip("the headers of this Python are not installed")
    folder = tmp_path_factory.mktemp("embedding")
    (folder / "program.c").write_text(EMBEDDING)
    library = settings["LDLIBRARY"].removeprefix("lib").removesuffix(".so")
    subprocess.run(
        [
            compiler,
            "program.c",
            "-o",
            "program",
            f"-I{settings['INCLUDEPY']}",
            f"-L{settings['LIBDIR']}",
            f"-Wl,-rpath,{settings['LIBDIR']}",
            f"-l{library}",
        ],
        cwd=folder,
        check=True,
    )
    return folder / "program"


@pytest.mark.parametrize("path", ["own", "foreign", "shim", "empty"])
def test_a_program_of_c_with_python_inside(path, embedding, tmp_path):
    """It takes sys.executable from PATH: the same Python, one of another version, who knows which, or none."""
    foreign = make_program(tmp_path / "foreign" / "python3.99", f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    os.symlink(foreign, tmp_path / "foreign" / "python3")
    make_program(tmp_path / "shims" / "python3", f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    folders = {
        "shim": str(tmp_path / "shims"),
        "own": os.path.join(sys.base_prefix, "bin"),
        "foreign": str(tmp_path / "foreign"),
        "empty": str(tmp_path),
    }
    script = f"""
    told, wanted = sys.executable, {folders[path]!r}
    assert ({path!r} == "empty") == (not told) and (told or "").startswith({path!r} != "empty" and wanted or ""), told
    program, executable, _ = ask()
    assert os.path.realpath(program) == {os.path.realpath(sys.executable)!r}, program
    """
    done = subprocess.run(
        [str(embedding), POOL + textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=50,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": folders[path]},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "started").exists(), "a stranger was started"


def test_each_program_is_tried_once_and_again_in_another_folder(tmp_path, monkeypatch):
    """The same program in another folder belongs to another environment, which may have what is needed."""
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    real = tmp_path / "one" / "python3"
    real.touch(0o755)
    names = [real, tmp_path / "one" / "python", tmp_path / "two" / "python3", tmp_path / "two" / "python"]
    for name in names[1:]:
        name.symlink_to(real)
    monkeypatch.setattr(interpreter, "_candidates", lambda: map(str, [*names, tmp_path / "three"]))
    monkeypatch.setattr(interpreter, "_is_certain", lambda program: program == "certain")
    assert interpreter._other_candidates(str(real)) == [str(names[2])]
    assert interpreter._other_candidates("another") == [str(real), str(names[2])]
    assert interpreter._other_candidates("certain") == []


@pytest.mark.parametrize(
    ("number", "others", "told"),
    [
        (errno.ENOENT, [], OSError),
        (errno.EAGAIN, ["other"], OSError),
        (errno.ENOENT, ["other"], TemplateError),
    ],
)
def test_what_the_system_says_of_the_only_program_or_of_any_is_its_own_error(monkeypatch, number, others, told):
    """A pool advises otherwise where the kernel refuses than where a program is none."""
    monkeypatch.setattr(interpreter, "find", lambda: "first")
    monkeypatch.setattr(interpreter, "_other_candidates", lambda _first: others)
    tried = []

    def start(program, is_last):
        tried.append((program, is_last))
        raise OSError(number, os.strerror(number))

    with pytest.raises(told, match=os.strerror(number)):
        interpreter.start_first_usable(start)
    assert tried == ([("first", False), ("other", True)] if told is TemplateError else [("first", not others)])
