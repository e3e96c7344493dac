"""What stands for the host's script in a worker: what is read of it, how it is run, and where it has failed."""

from __future__ import annotations

import signal
import sys
from types import ModuleType

import pytest

from pidfdpool.serialization import namespaces, scripts
from pidfdpool.serialization.scripts import Script
from pidfdpool.worker import rebuild_guard, script_module
from tests.conditions import in_forked_child

GUARDED = "if __name__ == '__main__':\n    work()\n"
ONE = f"X = 1\n{GUARDED}"


def in_worker(script, look):
    """Call look(main) in a process in which this script's module is installed."""

    def worker():
        namespaces.globals_by_module.clear()  # what other tests of this process have received
        script_module.install(script)
        look(sys.modules["__main__"])

    assert in_forked_child(worker) == "ok"


def written(tmp_path, text, name="script.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_it_takes_the_place_of_main_under_both_names_and_keeps_the_process_own(tmp_path):
    own = sys.modules["__main__"]
    path = written(tmp_path, ONE)
    script = Script(path, None)

    def look(main):
        assert type(main) is script_module.ScriptModule
        assert sys.modules["__mp_main__"] is main
        assert main.__name__ == "__main__"
        assert main.__file__ == path
        assert vars(main)[scripts.STAND_IN] is True
        assert scripts.current() is script
        assert any(each is own for each in script_module._original), "its code runs this process"

    in_worker(script, look)


def test_without_a_file_it_has_none():
    def look(main):
        assert "__file__" not in vars(main)
        with pytest.raises(AttributeError, match=r"no attribute '__file__' in this worker \(typed\)"):
            main.__file__  # noqa: B018

    in_worker(Script(None, None, "typed"), look)


@pytest.mark.parametrize("module", [None, "json.tool"])
def test_multiprocessing_is_told_from_where_its_processes_run_it(tmp_path, module):
    def look(main):
        spec = main.__spec__
        if module is None:
            assert spec is None, "from its file"
        else:
            assert (spec.name, spec.loader) == (module, None)

    in_worker(Script(written(tmp_path, ONE), module), look)


def test_multiprocessing_does_not_run_a_script_again_that_must_not_be(tmp_path):
    def look(main):
        assert (main.__spec__.name, main.__spec__.loader) == ("__main__", None)
        main.__spec__ = None
        assert main.__spec__ is not None

    in_worker(Script(written(tmp_path, ONE), None, "it must not"), look)


def test_an_attribute_that_nobody_has_is_told_without_a_hint(tmp_path):
    def look(main):
        with pytest.raises(AttributeError) as caught:
            main.other  # noqa: B018
        assert str(caught.value) == "module '__main__' has no attribute 'other' in this worker"

    in_worker(Script(written(tmp_path, ONE), None), look)


def test_a_name_that_the_script_defines_only_sometimes_is_missing_after_one_run(tmp_path):
    log = tmp_path / "runs"
    text = f"open({str(log)!r}, 'a').write('run ')\nif False:\n    sometimes = 1\n"

    def look(main):
        for _ in range(2):
            assert not hasattr(main, "sometimes")

    in_worker(Script(written(tmp_path, text + GUARDED), None), look)
    assert log.read_text() == "run "


def test_a_script_that_was_run_for_all_workers_is_not_run_again_for_a_name(tmp_path):
    log = tmp_path / "runs"
    text = f"open({str(log)!r}, 'a').write('run ')\nX = 1\n"

    def look(main):
        script_module.run_script()
        assert main.X == 1
        del main.X
        assert not hasattr(main, "X")

    in_worker(Script(written(tmp_path, text + GUARDED), None), look)
    assert log.read_text() == "run "


@pytest.mark.parametrize("in_template", [False, True])
def test_a_script_finds_itself_as_a_spawned_process_would(tmp_path, in_template):
    names = "(__name__, __file__, __package__, __spec__)"
    path = written(tmp_path, f"SEEN = {names}\n{GUARDED}")

    def look(main):
        if in_template:
            script_module.run_script()
        seen = main.SEEN
        assert seen == ("__mp_main__", path, "", None)

    in_worker(Script(path, None), look)


def test_a_module_that_was_run_by_name_finds_itself_as_that(tmp_path):
    (tmp_path / "a_package").mkdir()
    written(tmp_path / "a_package", "")
    (tmp_path / "a_package" / "__init__.py").write_text("")
    text = "SEEN = __name__, __file__, __package__, __spec__.name, __loader__ is __spec__.loader, __cached__"
    path = written(tmp_path / "a_package", f"{text}\n{GUARDED}", "run.py")

    def look(main):
        sys.path.insert(0, str(tmp_path))
        script_module.run_script()
        *seen, cached = main.SEEN
        assert seen == ["__mp_main__", path, "a_package", "a_package.run", True]
        assert cached.endswith(".pyc")

    in_worker(Script(path, "a_package.run"), look)


def test_a_script_is_compiled_without_the_features_of_the_pools_own_code(tmp_path):
    def look(main):
        script_module.run_script()
        annotation = main.f.__annotations__["x"]
        assert annotation is int, "no future import of the pool's holds in it"

    in_worker(Script(written(tmp_path, "def f(x: int): pass\n" + GUARDED), None), look)


def test_a_pool_at_the_top_level_of_a_script_is_refused_and_why_is_kept(tmp_path):
    text = "from pidfdpool.worker import rebuild_guard\nFIRST = 1\nrebuild_guard.check()\n"

    def look(main):
        script_module.run_script()
        assert main.FIRST == 1
        failure = vars(main)[scripts.FAILURE]
        assert failure.startswith("RuntimeError: a pool was used by the import of module '__mp_main__'")
        assert "while the script was run again for workers" in failure
        assert rebuild_guard.state.activity is None

    in_worker(Script(written(tmp_path, text), None), look)


def test_where_a_script_has_failed_is_its_own_line_and_not_that_of_what_it_calls(tmp_path):
    path = written(tmp_path, "import json\ndef f():\n    json.loads('{')\n\nf()\n")

    def look(main):
        script_module.run_script()
        assert vars(main)[scripts.FAILURE].endswith(f" ({path}, line 3)")

    in_worker(Script(path, None), look)


def test_a_script_that_is_gone_is_told_without_a_line(tmp_path):
    path = str(tmp_path / "gone.py")

    def look(main):
        script_module.run_script()
        failure = vars(main)[scripts.FAILURE]
        assert failure.startswith("FileNotFoundError: ")
        assert "line" not in failure

    in_worker(Script(path, None), look)


def test_a_main_that_is_none_of_ours_is_left_alone(tmp_path):
    log = tmp_path / "runs"
    path = written(tmp_path, f"open({str(log)!r}, 'a').write('run ')\n")

    def look(main):
        sys.modules["__main__"] = ModuleType("__main__")
        script_module.run_script()
        assert not scripts.ran_again
        sys.modules["__main__"] = main
        scripts.ran_again = True
        script_module.run_script()

    in_worker(Script(path, None), look)
    assert not log.exists()


# ---- signals -----------------------------------------------------------------------------------------------------


def handler(number, frame):
    """Stand for one that a .pth file has set."""


def test_handlers_of_the_interpreters_start_are_kept_for_workers_and_no_defaults():
    def worker():
        script_module._worker_handlers.clear()
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, handler)
        signal.signal(signal.SIGINT, handler)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        script_module.keep_signals()
        assert script_module._worker_handlers == {signal.SIGUSR2: handler, signal.SIGINT: handler}
        for number in (signal.SIGUSR2, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        script_module.set_signals()
        assert signal.getsignal(signal.SIGUSR2) is handler
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN

    assert in_forked_child(worker) == "ok"


def test_only_handlers_that_the_script_has_changed_are_the_workers(tmp_path):
    path = written(tmp_path, "import signal\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n")

    def look(main):
        signal.signal(signal.SIGUSR2, handler)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        script_module._worker_handlers.clear()
        script_module.run_script()
        assert script_module._worker_handlers == {int(signal.SIGUSR1): signal.SIG_IGN}
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGUSR2) is handler

    in_worker(Script(path, None), look)
