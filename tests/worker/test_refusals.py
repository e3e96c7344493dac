"""How a pool that is used while a worker rebuilds something is refused: what is told, and who is refused."""

from __future__ import annotations

import os
import threading

import pytest

from pidfdpool.worker import context, rebuild_guard
from tests.conditions import in_forked_child

state = rebuild_guard.state


@pytest.fixture(autouse=True)
def no_task(monkeypatch):
    for name in ("_task", "_call_until"):
        monkeypatch.setattr(context, name, None)


def run_as(name, filename, source, **names):
    """Run source as the body of a module of this name in this file."""
    exec(compile(source, filename, "exec"), {"__name__": name, **names})


def refused(use):
    """Return why use() is refused, which the worker's loop leads to."""
    with rebuild_guard.during(rebuild_guard.CALL), pytest.raises(RuntimeError) as caught:
        run_as("pidfdpool.worker.process", "loop.py", "use()", use=use)
    return str(caught.value)


def use_it():
    rebuild_guard.check()


def test_where_nothing_is_rebuilt_nothing_is_refused():
    rebuild_guard.check()
    with rebuild_guard.during("outer"):
        assert state.activity == "outer"
    assert state.activity is None
    rebuild_guard.check()


def test_it_is_told_what_was_used_by_which_line_of_which_function_and_what_to_do():
    text = refused(use_it)
    line = use_it.__code__.co_firstlineno + 1
    assert text == (
        f'a pool was used by use_it() (file "{__file__}", line {line}) while a worker was rebuilding a task '
        f"(pid {os.getpid()}). It is not started: each worker would start such a pool, and so would the workers of "
        "that pool. Use the pool in a function that is not called when the module is imported, or below "
        '`if __name__ == "__main__":`. The pool may be made anywhere.'
    )


def test_a_swarm_and_its_nodes_are_told_as_that():
    text = refused(lambda: rebuild_guard.check("swarm", "node"))
    assert text.startswith("a swarm was used by ")
    assert "each node would start such a swarm, and so would the nodes of that swarm" in text
    assert "Use the swarm in" in text
    assert text.endswith("The swarm may be made anywhere.")


def test_the_task_that_is_being_run_is_named():
    context.enter(77, 1, None)
    assert f"(task 77, pid {os.getpid()})" in refused(use_it)


def test_of_imports_within_imports_the_innermost_module_is_named():
    def use():
        run_as("outer", "outer.py", "run('inner', 'inner.py', '\\n\\nhelp()', help=help)", run=run_as, help=helper)

    def helper():
        rebuild_guard.check()

    assert "by the import of module 'inner' (file \"inner.py\", line 3) while" in refused(use)


def test_frames_of_the_package_and_of_the_import_system_are_nobodys():
    """And what lies behind the package's own that led to the user's code does not use the pool."""

    def users():
        run_as("importlib._bootstrap", "<frozen importlib>", "use()", use=start)

    def start():
        run_as("pidfdpool.executor.pool", "pool.py", "check()", check=rebuild_guard.check)

    text = refused(users)
    assert text.startswith("a pool was used by run_as() (file"), "no module lies between it and the worker's loop"
    assert "frozen" not in text
    assert "pool.py" not in text
    frozen = compile("use()", "<frozen importlib>", "exec")
    text = refused(lambda: exec(frozen, {"use": rebuild_guard.check}))
    assert "<lambda>() (file" in text


def test_a_module_whose_name_only_begins_like_the_package_is_the_users():
    text = refused(lambda: run_as("pidfdpools", "mine.py", "check()", check=rebuild_guard.check))
    assert "by the import of module 'pidfdpools' (file \"mine.py\", line 1)" in text
    text = refused(lambda: run_as(5, "odd.py", "check()", check=rebuild_guard.check))
    assert 'by the import of module 5 (file "odd.py", line 1)' in text


def test_who_has_no_frame_of_the_users_is_a_thread(monkeypatch):
    monkeypatch.setattr(rebuild_guard, "_is_of_package", lambda _frame: True)
    assert refused(use_it).startswith("a pool was used by a thread while ")


def test_all_threads_but_this_one_are_others():
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(30,))
    thread.start()
    try:
        others = set(rebuild_guard.other_threads())
        assert thread.ident in others
        assert threading.get_ident() not in others
        with rebuild_guard.during("it"):
            assert set(state.unrelated_threads) == others
    finally:
        go.set()
        thread.join()


def test_what_an_unrelated_thread_has_forked_may_use_pools_and_what_the_import_has_forked_may_not():
    with rebuild_guard.during(rebuild_guard.CALL):
        rebuild_guard.forget_in_forked_child()
        assert state.activity == rebuild_guard.CALL
        with pytest.raises(RuntimeError):
            rebuild_guard.check()
        state.unrelated_threads = {threading.get_ident()}
        rebuild_guard.check()
        rebuild_guard.forget_in_forked_child()
        assert state.activity is None


def test_where_there_is_no_other_thread_none_is_looked_for():
    def alone():
        assert list(rebuild_guard.other_threads()) == []

    assert in_forked_child(alone) == "ok"
