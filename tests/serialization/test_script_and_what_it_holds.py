"""A worker that has run the script again: what holds something of the script's that the host has changed since."""

from __future__ import annotations

from pidfdpool.serialization import payload
from tests.serialization.far_side import dumped

BASES = """
import threading
LOCK = threading.Lock()
class A:
    def get(self): return 1
class B(A):
    own = 1
class D(B):
    pass
def look():
    with LOCK:
        return issubclass(B, A), issubclass(D, B), B().get(), D().own
"""


def test_a_class_is_the_scripts_only_with_the_scripts_bases(main, run, script):
    far = script(BASES)
    before = dict(far.names)
    assert far.ask(main.look) == (True, True, 1, 1)
    assert all(far.names[name] is before[name] for name in "ABD")
    far = script(BASES)
    main.A.get = lambda self: 2
    assert far.ask(main.look) == (True, True, 2, 1)
    assert not any(far.names[name] is before[name] for name in "ABD")


CYCLE = """
import threading
LOCK = threading.Lock()
class A:
    def get(self): return 1
class B(A):
    pass
A.known = [B]
def look():
    with LOCK:
        return issubclass(B, A), A.known[0] is B, B().get(), A.known[0]().get()
"""


def test_classes_that_refer_to_each_other_are_the_scripts_if_nothing_has_changed(main, script):
    """Guards: the class below was the host's, and not a subclass of the other, which was the script's."""
    far = script(CYCLE)
    before = dict(far.names)
    for _ in range(2):
        assert far.ask(main.look) == (True, True, 1, 1)
        assert all(far.names[name] is before[name] for name in "AB")
    main.A.get = lambda self: 2
    assert far.ask(main.look) == (True, True, 2, 2), "in the class that was kept"
    assert all(far.names[name] is before[name] for name in "AB")


def test_and_all_the_hosts_if_one_of_them_has(main, script):
    far = script(CYCLE)
    before = dict(far.names)
    main.A.get = lambda self: 2
    for _ in range(2):
        assert far.ask(main.look) == (True, True, 2, 2)
    assert not any(far.names[name] is before[name] for name in "AB")
    far = script(CYCLE)
    main.B.get = lambda self: 3
    assert far.ask(main.look) == (True, True, 3, 3)


HELD = """
import functools, threading
LOCK = threading.Lock()
class Other:
    def get(self): return 1
def helper(): return 1
class C:
    kind, help = Other, staticmethod(helper)
    class Inner:
        kind = Other
def by_default(kind=Other): return kind
def by_keyword(*, kind=Other): return kind
def by_attribute(): return by_attribute.kind
by_attribute.kind = Other
def make():
    kind = Other
    return lambda: kind
by_closure = make()
@functools.lru_cache
def cached(kind=Other): return kind
def unrelated(n=1): return n
def look():
    with LOCK:
        kinds = C.kind, C.Inner.kind, by_default(), by_keyword(), by_attribute(), by_closure(), cached()
        return [kind is Other for kind in kinds], Other().get(), C.help is helper, helper(), unrelated()
"""
HOLDERS = ("C", "by_default", "by_keyword", "by_attribute", "cached")


def test_what_holds_a_changed_definition_is_the_hosts_and_all_else_the_scripts(main, script):
    """Guards: a function had the script's older class as a default, though the host had changed that class."""
    far = script(HELD)
    before = dict(far.names)
    assert far.ask(main.look) == ([True] * 7, 1, True, 1, 1)
    assert all(far.names[name] is before[name] for name in (*HOLDERS, "Other", "helper", "unrelated"))
    far = script(HELD)
    before = dict(far.names)
    main.Other.get = lambda self: 2
    for _ in range(2):
        assert far.ask(main.look) == ([True] * 7, 2, True, 1, 1)
    assert not any(far.names[name] is before[name] for name in (*HOLDERS, "Other"))
    assert far.names["unrelated"] is before["unrelated"]


def test_objects_that_a_worker_has_made_follow_a_change_of_their_class(main, script):
    """What comes for the class is put into the script's class, of which they are."""
    far = script(CYCLE.replace("A.known = [B]", "B.known = [A]\nA.known = B.known").replace("[0]", "[-1]"))
    far.call(dumped(main.look))
    kind = far.names["B"]
    made = kind()
    main.B.get = lambda self: 5
    far.call(dumped(main.look))
    assert far.names["B"] is kind
    assert made.get() == 5


def test_a_class_of_the_scripts_that_has_lost_its_name_is_still_the_hosts_in_results(main, script):
    far = script(CYCLE.replace("A.known = [B]", "A.known = [1]").replace("A.known[0]", "B"))
    assert far.ask(main.look) == (True, True, 1, 1)
    kind = far.names.pop("B")
    assert payload.load_result(far.pickled(kind)) is main.B


def test_nothing_is_left_undecided(main, script):
    far = script(CYCLE)
    far.ask(main.look)
    assert far.state("_undecided") == set()
