"""How the launcher is started: what posix_spawn is asked for, and what is done around a fork of the host."""

from __future__ import annotations

import errno
import gc
import io
import os
import resource
import signal
import sys
import threading
import warnings
from types import SimpleNamespace

import pytest

from pidfdpool.process import hygiene
from pidfdpool.template import interpreter_options, launch, process
from pidfdpool.transport import framing
from pidfdpool.worker.boot import DETACHED, PIDFD, SENTINEL, Boot
from tests.conditions import in_forked_child


def boot_of(**options):
    fields = {"preload": (), "forked": True, "preload_call": None, "initializer": None, "handles": PIDFD} | options
    return Boot(host_pid=os.getpid(), host_name="MainProcess", argv=["host"], authkey=b"key", **fields)


@pytest.fixture
def spawned(monkeypatch):
    """Return how posix_spawn was called: its arguments and options. Streams, options and paths are short."""
    called = []

    def spawn(*arguments, **options):
        called.append((arguments, options))
        return 123

    monkeypatch.setattr(launch.native, "posix_spawn", spawn)
    monkeypatch.setattr(launch, "_streams", lambda: ["streams"])
    monkeypatch.setattr(launch, "interpreter_options", lambda: ["-X", "dev"])
    monkeypatch.setattr(launch, "_paths", lambda: ["/one", "/two"])
    return called


DUP2, OPEN = os.POSIX_SPAWN_DUP2, os.POSIX_SPAWN_OPEN


def test_a_fresh_interpreter_gets_each_descriptor_under_a_number_that_none_of_them_has(spawned):
    """Guards: a descriptor that was put onto the number of the next one was passed on twice, and that one not."""
    assert launch.spawn("python", (7, 5, 9), SENTINEL, 77) == 123
    [((program, arguments, environment), options)] = spawned
    assert program == "python"
    numbers = ["10", "11", "12"]
    told = [*numbers, SENTINEL, "77", launch._HOME, "/one", "/two"]
    assert arguments == ["python", "-X", "dev", "-c", launch._LAUNCHER, *told]
    assert environment is os.environ
    assert options["file_actions"] == ["streams", (DUP2, 7, 10), (DUP2, 5, 11), (DUP2, 9, 12)]
    assert options["setpgroup"] == 0


def test_a_fresh_interpreter_begins_with_no_signal_blocked_and_none_ignored(spawned):
    launch.spawn("python", (7, 5, 9), SENTINEL, 77)
    options = spawned[0][1]
    assert options["setsigmask"] == ()
    assert options["setsigdef"] == signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


@pytest.mark.parametrize("null", [True, False])
def test_the_small_program_is_silent_and_passes_standard_error_on_under_another_number(spawned, monkeypatch, null):
    """If it cannot fork, the next start tells what is wrong. Not both."""
    asked = []
    monkeypatch.setattr(launch.os, "access", lambda *arguments: asked.append(arguments) or null)
    assert launch.spawn_detached("python", (7, 5, 9), 77) == 123
    [((program, arguments, _), options)] = spawned
    assert program == "/usr/bin/setsid"
    assert arguments[:2] == ["/usr/bin/setsid", "python"]
    assert arguments[6:11] == ["10", "11", "12", f"{DETACHED}13", "77"]
    silenced = [(OPEN, 2, os.devnull, os.O_WRONLY, 0)] if null else []
    assert options["file_actions"][-1 - len(silenced) :] == [(DUP2, 2, 13), *silenced]
    assert options["setpgroup"] == 0
    assert asked == [(os.devnull, os.W_OK)]


def test_numbers_above_the_limit_of_descriptors_are_too_many_files_and_not_a_bad_one():
    """Guards: a host with nearly as many descriptors as it may have was told of a bad file descriptor."""

    def child():
        fds = tuple(os.dup(2) for _ in range(3))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fds) + 1, hard))
        with pytest.raises(OSError, match="Too many open files"):
            launch.spawn(sys.executable, fds, SENTINEL, 77)

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize("name", ["EPERM", "EACCES", "ENOSYS"])
def test_a_refused_group_is_tried_as_a_session_and_if_that_fails_its_error_is_raised(monkeypatch, name):
    asked, number = [], getattr(errno, name)

    def start(**options):
        asked.append(options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(launch, "_starting", lambda *_: start)
    with pytest.raises(OSError, match=os.strerror(number)):
        launch.spawn("python", (3, 4, 5), SENTINEL, 77)
    assert asked == [{"setpgroup": 0}, {"setsid": True}]


def test_the_home_is_where_this_package_was_found():
    assert os.path.isfile(os.path.join(launch._HOME, "pidfdpool", "template", "launch.py"))


@pytest.mark.parametrize("start", ["spawn", "spawn_detached"])
@pytest.mark.parametrize(("limit", "told"), [(10, errno.EMFILE), (100, errno.EBADF)])
def test_a_number_beyond_the_limit_of_descriptors_is_none_that_is_left(spawned, monkeypatch, start, limit, told):
    """Guards: dup2 calls it EBADF, and so the error said that some descriptor was not open."""

    def refuse(*_, **__):
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(launch.native, "posix_spawn", refuse)
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, 1000))
    arguments = (SENTINEL, 77) if start == "spawn" else (77,)
    with pytest.raises(OSError, match="Too many open files" if told == errno.EMFILE else "Bad file") as caught:
        getattr(launch, start)("python", (7, 5, 9), *arguments)
    assert caught.value.errno == told


# ---- options -----------------------------------------------------------------------------------------------------


def test_streams_are_opened_only_where_there_is_a_device_for_them(monkeypatch):
    def child():
        os.close(0)
        asked = []
        monkeypatch.setattr(launch.os, "access", lambda *arguments: asked.append(arguments) or len(asked) == 1)
        assert launch._streams() == [(OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        assert launch._streams() == []
        assert asked == [(os.devnull, os.R_OK | os.W_OK)] * 2

    assert in_forked_child(child) == "ok"


@pytest.mark.parametrize(
    ("given", "known", "expected"),
    [
        ({"mine": True}, [], ["-X", "mine"]),
        ({"mine": "5"}, [], ["-X", "mine=5"]),
        ({"mine": "5"}, ["-X", "mine=5"], ["-X", "mine=5"]),
        ({"mine": True}, ["-X", "mine"], ["-X", "mine"]),
        ({"mine": "5"}, ["-X", "mine_too=5"], ["-X", "mine_too=5", "-X", "mine=5"]),
        ({}, ["-B"], ["-B"]),
    ],
)
def test_options_that_the_interpreters_own_list_lacks_are_added_once(monkeypatch, given, known, expected):
    monkeypatch.setattr("subprocess._args_from_interpreter_flags", lambda: list(known))
    monkeypatch.setattr(sys, "_xoptions", given)
    monkeypatch.setattr(interpreter_options, "_is_unbuffered", lambda: False)
    monkeypatch.setattr(interpreter_options, "_imp", SimpleNamespace(check_hash_based_pycs="default"))
    assert interpreter_options.interpreter_options() == [*expected, "-P"]


def test_a_choice_of_how_pycs_are_checked_is_passed_on(monkeypatch):
    monkeypatch.setattr("subprocess._args_from_interpreter_flags", list)
    monkeypatch.setattr(sys, "_xoptions", {})
    monkeypatch.setattr(interpreter_options, "_is_unbuffered", lambda: True)
    monkeypatch.setattr(interpreter_options, "_imp", SimpleNamespace(check_hash_based_pycs="never"))
    assert interpreter_options.interpreter_options() == ["--check-hash-based-pycs", "never", "-u", "-P"]


class Detached:
    """A stream whose buffer the program has taken away."""

    @property
    def buffer(self):
        raise ValueError("underlying buffer has been detached")


@pytest.mark.parametrize(
    ("out", "err", "unbuffered"),
    [
        ("raw", "buffered", True),
        ("buffered", "raw", True),
        ("detached", "raw", True),
        ("none", "raw", True),
        ("buffered", "buffered", False),
        ("none", "none", False),
        ("detached", "none", False),
    ],
)
def test_an_unbuffered_interpreter_is_known_by_either_of_its_streams(monkeypatch, tmp_path, out, err, unbuffered):
    with open(tmp_path / "file", "wb", buffering=0) as raw, io.BytesIO() as buffered:
        assert type(raw) is io.FileIO
        streams = {
            "raw": SimpleNamespace(buffer=raw),
            "buffered": SimpleNamespace(buffer=buffered),
            "detached": Detached(),
            "none": None,
        }
        monkeypatch.setattr(sys, "__stdout__", streams[out])
        monkeypatch.setattr(sys, "__stderr__", streams[err])
        assert interpreter_options._is_unbuffered() is unbuffered


def test_a_process_that_has_ended_is_no_template():
    assert not launch.is_detached_template(2**22 + 1, 77)
    assert not launch.is_detached_template(os.getpid(), 77)


# ---- a fork of the host ------------------------------------------------------------------------------------------


@pytest.fixture
def order(monkeypatch):
    """Return what is done around a fork that is none."""
    order = []
    monkeypatch.setattr(launch, "_finish_imports", lambda: order.append("imports"))
    monkeypatch.setattr(hygiene, "flush_output", lambda: order.append("flush"))

    def fork(withheld):
        held = signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGTERM, signal.SIGINT}
        order.append(("fork", held, sys.getprofile()))
        withheld.append("a warning of the interpreter's")
        return 123

    monkeypatch.setattr(launch.native, "fork", fork)
    monkeypatch.setattr(launch.native, "threads_are_greenlets", lambda: False)
    return order


def forked():
    return launch.fork(SimpleNamespace(), 5, 6, boot_of(), SimpleNamespace(cookie=1), set(), 8)


def test_before_a_fork_imports_are_over_and_output_is_written_and_nobody_watches_it(order):
    before = sys.getprofile()
    sys.setprofile(watch := lambda *_: None)
    try:
        with pytest.warns(DeprecationWarning, match="a warning of the interpreter's"):
            assert forked() == 123
        assert sys.getprofile() is watch
    finally:
        sys.setprofile(before)
    assert order == ["imports", "flush", ("fork", True, None)]


def test_warnings_of_a_fork_are_shown_when_it_is_over_and_do_no_harm_where_they_are_errors(order):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert forked() == 123


@pytest.mark.parametrize("greenlets", [True, False])
def test_where_threads_are_greenlets_the_fork_is_made_by_a_thread_that_has_none(order, monkeypatch, greenlets):
    fresh = []
    monkeypatch.setattr(launch.native, "threads_are_greenlets", lambda: greenlets)
    monkeypatch.setattr(launch.native, "run_in_fresh_thread", lambda run: fresh.append(1) or run())
    with pytest.warns(DeprecationWarning, match="a warning of"):
        assert forked() == 123
    assert fresh == [1] * greenlets


def test_modules_that_a_new_process_imports_are_loaded_in_the_host(monkeypatch):
    """If another thread of the host is importing one just then, the copy of its lock is never released."""
    loaded = []
    monkeypatch.setattr(launch, "import_module", loaded.append)
    monkeypatch.setattr(launch, "_USED_IF_LOADED", ("os", "module.that.nobody.has"))
    launch._finish_imports()
    assert loaded == [*launch._IMPORTED_AFTER_A_FORK, "os"]
    assert "pidfdpool.template.preimports" in loaded


@pytest.mark.parametrize("handles", [PIDFD, SENTINEL])
def test_the_forked_launcher_gets_the_hosts_objects_and_closes_its_copies(monkeypatch, handles):
    def child():
        called, closed, traced = [], [], []
        monkeypatch.setattr(launch.native, "fork", lambda _withheld: 0)

        def launched(*asked, **options):
            called.append((asked, options))
            traced.extend([sys.getprofile(), threading.getprofile()])

        monkeypatch.setattr(process, "launch", launched)
        boot = boot_of(handles=handles)
        gc.unfreeze()
        sys.setprofile(lambda *_: None)
        threading.setprofile(lambda *_: None)
        with monkeypatch.context() as patch:
            patch.setattr(launch.os, "_exit", left := Left())
            theirs, close_copies = SimpleNamespace(detach=lambda: 4), lambda: closed.append("copies")
            with pytest.raises(SystemExit):
                launch._fork_in_this_thread(theirs, 5, 6, boot, close_copies, 0x01020304, [])
        assert left.codes == [1], "it never comes back into the host's code"
        [(asked, options)] = called
        cookie = framing.cookie_bytes(0x01020304)
        assert asked[:-1] == (4, 5, 6, handles, cookie, boot)
        assert options == {"is_awaited": handles == SENTINEL}
        assert gc.get_freeze_count() > 0
        assert traced == [None, None], "nobody watches a new process, nor its threads"
        asked[-1]()
        assert closed == ["copies"]

    assert in_forked_child(child) == "ok"


class Left:
    def __init__(self):
        self.codes = []

    def __call__(self, code):
        self.codes.append(code)
        raise SystemExit
