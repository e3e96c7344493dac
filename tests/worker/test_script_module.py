"""What takes the place of the script in a worker: names that it has, and names for which the script is run again."""

from __future__ import annotations

import sys

import pytest

from pidfdpool.serialization import namespaces, scripts
from pidfdpool.serialization.scripts import Script
from pidfdpool.worker import script_module
from tests.conditions import in_forked_child

TEXT = """
RUNS = []
RUNS.append(__name__)
COUNT = 1
def helper():
    return COUNT
if __name__ == "__main__":
    guarded = 1
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(TEXT)
    return Script(str(path), None)


def in_worker(script, look):
    def worker():
        namespaces.globals_by_module.clear()  # what other tests of this process have received
        script_module.install(script)
        look(sys.modules["__main__"])

    assert in_forked_child(worker) == "ok"


def test_a_name_that_no_call_has_needed_is_found_by_running_the_script_once(script):
    def look(main):
        assert "helper" not in vars(main)
        assert main.helper() == 1
        assert main.RUNS == ["__mp_main__"]
        with pytest.raises(AttributeError, match="guarded"):
            main.guarded  # noqa: B018
        assert main.RUNS == ["__mp_main__"]
        assert scripts.ran_again

    in_worker(script, look)


def test_globals_that_are_there_already_stay_as_they_are_when_the_script_is_run(script):
    """Guards: tasks had changed them, or the host had sent newer values, and then they were as at the beginning."""

    def look(main):
        main.COUNT = [5]
        kept = main.COUNT
        main.helper  # noqa: B018
        assert main.COUNT is kept
        assert main.__name__ == "__main__"

    in_worker(script, look)


@pytest.mark.parametrize("name", ["helper_of_nobody", "__wrapped__"])
def test_for_a_name_that_the_script_does_not_define_it_is_not_run(script, name):
    def look(main):
        assert not hasattr(main, name)
        assert "RUNS" not in vars(main)

    in_worker(script, look)


def test_a_script_that_cannot_be_run_again_says_why(script):
    def look(main):
        with pytest.raises(AttributeError, match="typed in"):
            main.helper  # noqa: B018

    in_worker(Script(None, None, "the code was typed in"), look)


def test_a_script_is_run_once_for_all_workers_however_often_that_is_asked_for(script):
    """Guards: it was run again in the place of what tasks had made of its globals since."""

    def look(main):
        script_module.run_script()
        runs = main.RUNS
        script_module.run_script()
        assert main.RUNS is runs
        assert runs == ["__mp_main__"]
        assert main.__name__ == "__mp_main__"

    in_worker(script, look)


def test_where_the_hosts_own_main_is_there_nothing_is_run():
    def worker():
        script_module.run_script()
        assert not scripts.ran_again

    assert in_forked_child(worker) == "ok"


def test_why_a_script_has_failed_is_kept_with_its_line_and_what_it_had_defined_counts(tmp_path):
    path = tmp_path / "script.py"
    path.write_text("import os\nFIRST = 1\nraise SystemExit('no more')\n")

    def look(main):
        script_module.run_script()
        assert main.FIRST == 1
        assert vars(main)[scripts.FAILURE] == f"SystemExit: no more ({path}, line 3)"

    in_worker(Script(str(path), None), look)
