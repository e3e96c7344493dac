"""What becomes of workers' logs and warnings where nobody has asked, and whose handlers and filters count."""

from __future__ import annotations

import pytest

from tests.conditions import run_python

WORK = """
import logging, sys, warnings
from pidfdpool import PidfdPoolExecutor

def main(pool_options, *calls):
    with PidfdPoolExecutor(1, **pool_options) as pool:
        for call, *arguments in calls:
            pool.submit(call, *arguments).result()
"""

MODULE = """
import logging, sys, warnings

def log(text, level=logging.WARNING, name="app"):
    logging.getLogger(name).log(level, text)

def log_quickly(text):
    logging.warning(text)
    log(text + ", and by a logger")

def set_up():
    logging.basicConfig(format="in worker: %(message)s", stream=sys.stdout, level="INFO")

def add_handler():
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("in worker: %(message)s"))
    logging.getLogger().addHandler(handler)

def warn(text, category=UserWarning):
    warnings.warn(text, category)

def warn_of_own(text):
    warnings.warn(Own(text, 1))

class Own(UserWarning):
    def __init__(self, text, more):
        super().__init__(text)

def has_logging():
    return "logging" in sys.modules
"""


@pytest.fixture
def host(tmp_path):
    """Return a function that runs a host, with a module `tasks` that workers import; it returns its two outputs."""
    (tmp_path / "tasks.py").write_text(MODULE)

    def run(code, **options):
        done = run_python(
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nimport tasks\n{WORK}\n{code}",
            cwd=tmp_path,
            **options,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines(), done.stderr.splitlines()

    return run


SET_UP = "logging.basicConfig(format='in host: %(message)s', stream=sys.stdout, level='INFO')\n"


def test_where_the_host_has_set_up_logging_it_gets_what_fresh_interpreters_log(host):
    out, err = host(SET_UP + "main({}, (tasks.log, 'a'), (tasks.log, 'b', 20), (tasks.log, 'c', 10))")
    assert (out, err) == (["in host: a", "in host: b"], [])


@pytest.mark.parametrize("options", ["{}", "{'forward_logs': True}"])
def test_the_functions_of_the_module_set_up_nothing_in_a_worker(host, options):
    """`logging.warning` makes a handler where there is none. From then on the worker would look after itself."""
    out, err = host(SET_UP + f"main({options}, (tasks.log_quickly, 'a'), (tasks.log_quickly, 'b'))")
    texts = ("a", "a, and by a logger", "b", "b, and by a logger")
    assert (out, err) == ([f"in host: {text}" for text in texts], [])


def test_where_nothing_is_forwarded_they_do_what_python_does(host):
    options = "{'forward_logs': False}"
    assert host(SET_UP + f"main({options}, (tasks.log_quickly, 'a'))") == (
        [], ["WARNING:root:a", "WARNING:app:a, and by a logger"]
    )  # fmt: skip


def test_where_it_has_not_a_worker_does_what_python_does(host):
    assert host("main({}, (tasks.log, 'a'), (tasks.log, 'b', 20))") == ([], ["a"])
    assert host(SET_UP + "main({'forward_logs': False}, (tasks.log, 'a'))") == ([], ["a"])


def test_a_handler_that_writes_nothing_does_not_count_as_set_up(host):
    null = "logging.getLogger('lib').addHandler(logging.NullHandler())\nimport concurrent.futures.process\n"
    assert host(null + "main({}, (tasks.log, 'a'))") == ([], ["a"])


@pytest.mark.parametrize("initializer", ["set_up", "add_handler"])
def test_by_default_a_worker_that_sets_up_logging_looks_after_itself(host, initializer):
    out, err = host(SET_UP + f"main({{'initializer': tasks.{initializer}}}, (tasks.log, 'a'))")
    assert (out, err) == (["in worker: a"], [])


def test_a_worker_that_sets_up_logging_writes_as_well_if_the_host_has_asked(host):
    out, _ = host(SET_UP + "main({'initializer': tasks.add_handler, 'forward_logs': True}, (tasks.log, 'a'))")
    assert sorted(out) == ["in host: a", "in worker: a"]


def test_forked_workers_have_the_handlers_of_the_host_and_each_record_is_written_once(host):
    for options in ("{'mp_context': 'fork'}", "{'mp_context': 'fork', 'forward_logs': True}"):
        assert host(SET_UP + f"main({options}, (tasks.log, 'a'))") == (["in host: a"], [])


def test_handlers_that_the_preload_has_made_are_not_called_beside_the_hosts(host):
    options = "{'preload': ['tasks', tasks.add_handler], 'forward_logs': True}"
    assert host(SET_UP + f"main({options}, (tasks.log, 'a'))") == (["in host: a"], [])


@pytest.mark.parametrize(("options", "name"), [("{}", "__mp_main__"), ("{'forward_logs': True}", "__main__")])
def test_a_script_that_sets_up_logging_at_its_top_has_each_record_once(tmp_path, options, name):
    """By default the script that is run again writes them in the worker, where it has another name."""
    (tmp_path / "script.py").write_text(
        f"""
import logging, sys
from pidfdpool import PidfdPoolExecutor

logging.basicConfig(format="%(name)s %(message)s", stream=sys.stdout, level="INFO")
log = logging.getLogger(__name__)

def work(n):
    log.info("at work %d", n)

if __name__ == "__main__":
    with PidfdPoolExecutor(1, **{options}) as pool:
        pool.submit(work, 1).result()
"""
    )
    done = run_python(
        "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')", str(tmp_path / "script.py")
    )
    assert (done.returncode, done.stdout.splitlines()) == (0, [f"{name} at work 1"])


def test_a_worker_whose_tasks_do_not_log_does_not_load_logging(host):
    out, _ = host(SET_UP + "with PidfdPoolExecutor(1) as pool: print(pool.submit(tasks.has_logging).result())")
    assert out == ["True"], "tasks.py imports it"
    is_loaded = "'logging' in __import__('sys').modules"
    code = f"with PidfdPoolExecutor(1) as pool: print(pool.submit(eval, {is_loaded!r}).result())"
    assert host(SET_UP + code)[0] == ["False"]


# ---- warnings ------------------------------------------------------------------------------------------------------

TWO = "with PidfdPoolExecutor(2, forward_logs=True) as pool:\n    pool.prestart()\n"
MANY = TWO + "    [f.result() for f in [pool.submit(tasks.warn, 'careful') for _ in range(20)]]"


def test_a_place_that_warns_does_so_once_in_however_many_workers(host):
    out, err = host(MANY)
    assert out == []
    assert [line for line in err if "careful" in line] == [line for line in err if "tasks.py" in line]
    assert len([line for line in err if "UserWarning: careful" in line]) == 1


def test_a_host_that_captures_warnings_gets_records_of_theirs(host):
    code = (
        "form = '%(name)s %(processName)s %(function)s %(task)s %(message)s'\n"
        "logging.basicConfig(format=form, stream=sys.stdout)\n"
        "logging.captureWarnings(True)\n"
    )
    out, err = host(code + MANY)
    assert err == []
    [line] = [line for line in out if "careful" in line and "UserWarning" in line]
    assert line.startswith("py.warnings PidfdPoolWorker-")
    assert " tasks.warn " in line
    assert "tasks.py:" in line


@pytest.mark.parametrize(
    ("filters", "category", "shown"),
    [
        ("", "DeprecationWarning", 0),
        ("warnings.simplefilter('ignore')", "UserWarning", 0),
        ("warnings.simplefilter('default')", "DeprecationWarning", 1),
        ("warnings.simplefilter('always')", "ResourceWarning", 1),
        ("warnings.filterwarnings('ignore', message='care')", "UserWarning", 0),
        ("warnings.filterwarnings('ignore', module='tasks')", "UserWarning", 0),
        ("warnings.filterwarnings('ignore', module='other')", "UserWarning", 1),
        ("warnings.simplefilter('error')", "UserWarning", 1),
    ],
)
@pytest.mark.parametrize("captures", [False, True])
def test_the_filters_of_the_host_decide(host, filters, category, shown, captures):
    capture = "logging.basicConfig(); logging.captureWarnings(True)\n" if captures else ""
    call = f"main({{'forward_logs': True}}, (tasks.warn, 'careful', {category}))"
    _, err = host(f"{capture}{filters}\n{call}")
    assert len([line for line in err if f"{category}: careful" in line]) == shown


def test_warnings_can_be_recorded_in_the_host(host):
    code = """
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    main({'forward_logs': True}, (tasks.warn, 'one', RuntimeWarning), (tasks.warn_of_own, 'two'))
print([(each.category.__name__, str(each.message)) for each in caught])
"""
    out, _ = host(code)
    assert out == ["[('RuntimeWarning', 'one'), ('Own', 'two')]"]


def test_a_warning_that_python_is_told_to_raise_is_raised_in_the_task(host):
    code = (
        "with PidfdPoolExecutor(1, forward_logs=True) as pool:\n"
        "    print(repr(pool.submit(tasks.warn, 'careful').exception()))"
    )
    out, _ = host(code, flags=["-W", "error::UserWarning"])
    assert out == ["UserWarning('careful')"]


def test_warnings_count_as_records_of_theirs_for_the_option(host):
    ignored = "warnings.simplefilter('ignore')\n"  # by the host; a worker shows what it does not forward
    for choice, shown in (("'ERROR'", True), ("'WARNING'", False), ("['app']", True), ("['py.warnings']", False)):
        _, err = host(f"{ignored}main({{'forward_logs': {choice}}}, (tasks.warn, 'careful'))")
        assert any("UserWarning: careful" in line for line in err) is shown, choice
