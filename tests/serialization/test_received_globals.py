"""Globals of a script on their way: pickled as the host does it and taken as a worker does, in this one process."""

from __future__ import annotations

import sys
import threading
import weakref
from types import SimpleNamespace

import pytest

from pidfdpool.serialization import named_calls, namespaces, payload, scripts
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from tests import calls

FAILS: list[BaseException] = []  # what the rebuilding of an `Interrupted` raises


def rebuild():
    if FAILS:
        raise FAILS[0]
    return "rebuilt"


class Interrupted:
    """Its rebuilding can be interrupted."""

    def __reduce__(self):
        return rebuild, ()


@pytest.fixture
def worker(monkeypatch):
    """Have this process be a worker that has received nothing; return what it does with a payload."""
    for name in ("globals_by_module", "_last_received", "_pending", "_loading", "_held", "_made_by_script"):
        monkeypatch.setattr(namespaces, name, {})
    monkeypatch.setattr(namespaces, "_definition_ids", weakref.WeakKeyDictionary())
    FAILS.clear()

    def call(data):
        function, arguments, keywords = payload.loads([data])
        return function(*arguments, **keywords)

    return call


def dumped(function, *arguments):
    return payload.dumps_by_value((function, arguments, {}), None)


def test_two_names_that_share_an_object_share_it_in_the_worker(main, run, worker):
    run("first = [1]\nsecond = {'first': first}\ndef look():\n    return first, second")
    first, second = worker(dumped(main.look))
    assert second == {"first": [1]}
    assert second["first"] is first
    assert first is not main.first


@pytest.mark.parametrize("at", [0, -1])
def test_a_change_anywhere_in_a_long_value_is_noticed(main, run, worker, at):
    run("table = list(range(10_000))\ndef look(at):\n    return table[at]")
    worker(dumped(main.look, at))
    main.table[at] = 5_000  # which has as many bytes as any other of its size
    before = main.table[1]
    main.table[1] = 5_000 if at else before
    assert worker(dumped(main.look, at)) == 5_000
    main.table[at] = 5_001
    assert worker(dumped(main.look, at)) == 5_001


def test_what_a_worker_has_changed_stays_while_the_host_sends_the_same(main, run, worker):
    run("count = [0]\ndef add():\n    count[0] += 1\n    return count[0]")
    data = dumped(main.add)
    assert [worker(data), worker(data)] == [1, 2]
    main.count[0] = 10
    assert worker(dumped(main.add)) == 11


def test_after_an_interruption_nothing_is_half_received_and_the_next_call_gets_all(main, run, worker):
    run("def look():\n    return value, other")
    main.value, main.other = Interrupted(), [1]
    data = dumped(main.look)
    FAILS.append(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        worker(data)
    assert namespaces._pending == namespaces._loading == {}
    assert "value" not in namespaces.module_globals("__main__")
    FAILS.clear()
    assert worker(data) == ("rebuilt", [1])


def test_a_value_that_fails_to_be_rebuilt_is_tried_again_and_costs_no_other(main, run, worker):
    run("def look():\n    return other\ndef use():\n    return value")
    main.value, main.other = Interrupted(), [1]
    FAILS.append(ValueError("not now"))
    run("def both():\n    return other, lambda: value")
    other, use = worker(dumped(main.both))
    assert other == [1]
    with pytest.raises(NameError, match="not now"):
        str(use())
    FAILS.clear()
    assert worker(dumped(main.both))[1]() == "rebuilt"


# ---- several names -----------------------------------------------------------------------------------------------

NEEDED = {
    "by a function that rebuilding calls": """
        def make(key): return TABLE[key] + more()
        def more(): return OTHER
        value, TABLE, OTHER = Rebuilt(make, "a"), {"a": 1}, 2
        def look(): return value
        """,
    "by one of two values": """
        def make(at): return second[at]
        first, second = Rebuilt(make, 1), [3, 4]
        def look(): return first + second[0] - 4
        """,
    "in a container": """
        def make(n): return n * FACTOR[0]
        table, FACTOR = {"x": [Rebuilt(make, 1)]}, [3]
        def look(): return table["x"][0]
        """,
    "in a class": """
        def make(n): return n + STEP[0]
        class C:
            made = Rebuilt(make, 1)
        STEP = [2]
        def look(): return C.made
        """,
}


class Rebuilt:
    """Is rebuilt by a function of the script."""

    def __init__(self, function, argument):
        self.made_of = function, (argument,)

    def __reduce__(self):
        return self.made_of


@pytest.mark.parametrize("code", NEEDED.values(), ids=NEEDED)
def test_what_is_needed_to_rebuild_a_value_is_there_before(main, run, worker, code):
    main.Rebuilt = Rebuilt
    run(code)
    assert worker(dumped(main.look)) == 3


class NoMemory:
    """There is no memory to pickle it."""

    def __reduce__(self):
        raise MemoryError("none left")


@pytest.mark.parametrize(
    "dump",
    [
        lambda value: payload.dumps(value),
        lambda value: payload.dumps(value, payload.InheritedMain()),
        lambda value: payload.dumps(["__main__", value], payload.InheritedMain()),
        lambda value: OutOfBandPickle([b"x" * 100_000, value]),
        lambda value: named_calls.dumps(calls.double, (value,)),
    ],
)
def test_a_lack_of_memory_is_told_as_it_is(dump):
    with pytest.raises(MemoryError, match="none left"):
        dump(NoMemory())


def test_a_lack_of_memory_for_a_global_is_the_calls_and_no_reason_to_leave_it_out(main, run):
    run("def look():\n    return value\ndef hinted(x: 'value'):\n    return 1")
    main.value = NoMemory()
    for function in (main.look, main.hinted):
        with pytest.raises(MemoryError, match="none left"):
            dumped(function)


# ---- what makes the script run again ---------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch):
    """Have a script that can be run again, which defines LOCK."""
    script = SimpleNamespace(
        can_run_again=True, names={"LOCK"}, process_local=frozenset(), changes_process=False, obstacle=""
    )
    monkeypatch.setattr(scripts, "current", lambda: script)
    return script


USES = {
    "code": ("def f():\n    return LOCK", True),
    "another function": ("def g():\n    return LOCK\ndef f():\n    return g()", True),
    "an annotation": ("def f(x: LOCK):\n    return x", False),
    "an annotation as text": ("from __future__ import annotations\ndef f(x: LOCK):\n    return x", False),
    "an annotation of what is used": ("def g(x: 'LOCK'):\n    return x\ndef f():\n    return g(1)", False),
    "nothing": ("def f():\n    return 1", False),
}


@pytest.mark.usefixtures("script")
@pytest.mark.parametrize(("code", "needs"), [*USES.values()], ids=USES)
def test_a_global_that_does_not_pickle_makes_the_script_run_only_if_code_uses_it(main, run, code, needs):
    if code == USES["an annotation"][0] and sys.version_info < (3, 14):
        pytest.skip("the annotation is the lock itself, and has to be sent")
    main.LOCK = threading.Lock()
    run(code)
    assert payload.needs_script([dumped(main.f)]) is needs


def test_a_script_that_changes_the_process_is_run_for_whatever_uses_it(main, run, script):
    run("def f():\n    return 1")
    script.changes_process = True
    assert payload.needs_script([dumped(main.f)])
    run("def f():\n    return 2")
    script.can_run_again = False
    assert not payload.needs_script([dumped(main.f)])


def test_what_the_call_itself_consists_of_has_to_travel_or_to_be_made_by_the_script(main, run, script):
    main.LOCK = threading.Lock()
    run("def f(lock=LOCK):\n    return 1\ndef around():\n    return f()")
    script.names = {"LOCK", "f"}
    assert payload.needs_script([dumped(main.f)])
    assert payload.needs_script([dumped(len, [main.f])])
    for names, again in (({"LOCK"}, True), ({"LOCK", "f"}, False)):
        script.names, script.can_run_again = names, again
        for function, arguments in ((main.f, ()), (len, ([main.f],))):
            with pytest.raises(TypeError, match="cannot pickle"):
                dumped(function, *arguments)
        assert not payload.needs_script([dumped(main.around)]), "it fails if it is used"


def test_numbers_that_mean_something_in_the_hosts_process_only_are_made_by_the_script(main, run, script):
    run("pid = 5\ndef look():\n    return pid")
    script.names = script.process_local = {"pid"}
    assert payload.needs_script([dumped(main.look)])
    main.pid = "five"
    assert not payload.needs_script([dumped(main.look)]), "that is no number"
    main.pid, script.process_local = 5, frozenset()
    assert not payload.needs_script([dumped(main.look)])


def test_a_function_that_is_named_in_text_is_looked_for_in_the_script(main, run, script):
    assert payload.needs_script([dumped(len, "__main__:work")])
    assert not payload.needs_script([dumped(len, "__main__")])
    script.can_run_again = False
    assert not payload.needs_script([dumped(len, "__main__:work")])


def test_names_that_share_an_object_may_be_looked_up_before_their_turn(main, run, worker):
    run(
        "shared = []\n"
        "def first(value=shared):\n    return value\n"
        "def second(value=shared):\n    Holder, first\n    return value\n"
        "class Holder:\n    handler = staticmethod(second)\n"
        "def look():\n    return second, Holder, first"
    )
    second, holder, first = worker(dumped(main.look))
    assert holder.handler is second
    assert first() is second()
