"""Functions, classes and what holds them, as a worker gets them anew when the host has changed some of them."""

from __future__ import annotations

import sys
import types

import pytest

from pidfdpool import GlobalNotAvailable
from pidfdpool.serialization import namespaces, scripts
from pidfdpool.serialization.placeholder import Placeholder
from tests.serialization.far_side import FarSide, dumped

HOLDERS = """
class Kind:
    number = {}
    def __reduce__(self):
        return "ONLY"
ONLY = Kind()
held = [ONLY]
class Item:
    number = {}
item = Item()
other = ["untouched"]
def look():
    return ONLY.number, type(ONLY) is Kind, held[0] is ONLY, item.number, type(item) is Item, other
def look_at_kind():
    return Kind.number
def look_at_held():
    return held[0].number, held[0] is ONLY
"""


def holders(number):
    return HOLDERS.replace("{}", str(number))


def test_what_holds_a_definition_that_was_replaced_is_made_anew_though_its_bytes_are_the_same(main, run, far):
    run(holders(1))
    assert far.ask(main.look) == (1, True, True, 1, True, ["untouched"])
    far.names["other"].append("by the worker")
    for number in (2, 3):
        run(holders(number))
        assert far.ask(main.look) == (number, True, True, number, True, ["untouched", "by the worker"])


def test_also_if_it_comes_again_only_later(main, run, far):
    run(holders(1))
    far.ask(main.look)
    run(holders(2))
    assert far.ask(main.look_at_kind) == 2
    assert far.ask(main.look) == (2, True, True, 2, True, ["untouched"])
    run(holders(3))
    assert far.ask(main.look_at_held) == (3, True), "and what holds that in turn"
    assert far.ask(main.look) == (3, True, True, 3, True, ["untouched"])


def test_what_holds_no_replaced_definition_stays_as_the_worker_has_made_it(main, run, far):
    run(holders(1))
    far.ask(main.look)
    kept = far.names["item"]
    kept.own = "the worker's"
    run("class Kind:\n    number = 2\n    def __reduce__(self):\n        return 'ONLY'\nONLY = Kind()\nheld = [ONLY]")
    assert far.ask(main.look) == (2, True, True, 1, True, ["untouched"])
    assert far.names["item"] is kept


def test_an_unchanged_definition_is_not_replaced(main, run, far):
    run(holders(1))
    far.ask(main.look)
    before = dict(far.names)
    far.ask(main.look)
    assert far.names == before
    assert all(far.names[name] is value for name, value in before.items())


def test_values_that_share_an_object_are_replaced_together(main, run, far):
    run("""
    class Kind:
        number = 1
    shared = Kind()
    first, second = [shared], {"shared": shared}
    def look():
        return first[0] is second["shared"], type(first[0]) is Kind, first[0].number
    def look_at_kind():
        return Kind.number
    """)
    assert far.ask(main.look) == (True, True, 1)
    run("""
    class Kind:
        number = 2
    shared = Kind()
    first, second = [shared], {"shared": shared}
    """)
    assert far.ask(main.look_at_kind) == 2
    assert far.ask(main.look) == (True, True, 2)


def test_a_function_that_was_defined_anew_is_the_one_that_the_others_call(main, run, far):
    run("def answer():\n    return 1\ndef ask(*, function=answer):\n    return answer(), function()")
    assert far.ask(main.ask) == (1, 1)
    run("def answer():\n    return 2")
    assert far.ask(main.ask) == (2, 1), "the default is the older one, as in the host"
    assert far.ask(main.answer) == 2


def test_what_a_worker_has_set_before_the_first_value_came_stays(main, run, far):
    run("level, other = 1, 2\ndef look():\n    return level, other")
    far.names["level"] = 5
    assert far.ask(main.look) == (5, 2)
    main.level = 7
    assert far.ask(main.look) == (7, 2), "the host has changed it since"


def test_a_name_that_the_worker_has_deleted_is_not_brought_back_by_the_same_value(main, run, far):
    run("level = 1\ndef look():\n    return globals().get('level')\ndef use():\n    return level")
    far.ask(main.use)
    del far.names["level"]
    assert far.load(dumped(main.use))[0] is far.names["use"]
    assert "level" not in far.names
    main.level = 2
    assert far.ask(main.use) == 2


# ---- values that cannot be made --------------------------------------------------------------------------------

REFUSING = """
def refuse():
    raise ValueError("not here... ")
class Refusing:
    def __reduce__(self):
        return refuse, ()
value, other = Refusing(), 1
def look():
    return other, value
"""


def test_a_value_that_cannot_be_made_is_a_placeholder_that_tells_why(main, run, far):
    run(REFUSING)
    other, value = far.call(dumped(main.look))
    assert other == 1
    assert type(value) is Placeholder
    with pytest.raises(GlobalNotAvailable) as caught:
        value()
    text = "the script's global 'value' cannot be rebuilt in this worker: ValueError: not here. Make it in each"
    assert str(caught.value).startswith(text)
    assert type(caught.value.__cause__) is ValueError
    main.value = 5
    assert far.ask(main.look) == (1, 5), "a value that comes takes its place"


@pytest.mark.parametrize(
    ("names", "ran_again", "module", "needs"),
    [
        ({"value"}, False, "__main__", True),
        ({"other"}, False, "__main__", False),
        ({"value"}, True, "__main__", False),
        ({"value"}, False, "another", False),
    ],
    ids=["the script makes it", "it does not", "it did not", "it is another module's"],
)
def test_the_script_is_run_again_only_if_it_can_make_the_value_and_has_not_run(far, names, ran_again, module, needs):
    script = types.SimpleNamespace(can_run_again=True, names=names, obstacle="")
    far = FarSide(script)
    with far.here():
        scripts.ran_again = ran_again
        if needs:
            with pytest.raises(scripts.NeedsScript, match="value"):
                namespaces._set_placeholder((module, "value"), ValueError("no"))
        else:
            namespaces._set_placeholder((module, "value"), ValueError("no"))
        assert ("value" in namespaces.module_globals(module)) is not needs
        script.can_run_again = False
        namespaces._set_placeholder((module, "value"), ValueError("no"))
        assert type(namespaces.module_globals(module)["value"]) is Placeholder


def test_nothing_is_left_half_received(main, run, far):
    run(REFUSING)
    far.call(dumped(main.look))
    assert far.state("_pending") == far.state("_loading") == {}
    assert far.state("_looking_up") == []


# ---- the globals of modules ------------------------------------------------------------------------------------


def test_a_module_keeps_what_it_has_and_gets_what_it_lacks(far):
    with far.here():
        names = namespaces.module_globals("another", {"__file__": "a.py", "__package__": "p"})
        assert names == {"__name__": "another", "__file__": "a.py", "__package__": "p"}
        names["__package__"] = None
        again = namespaces.module_globals("another", {"__file__": "b.py", "__package__": "q", "__name__": "x"})
        assert again is names
        assert names == {"__name__": "another", "__file__": "a.py", "__package__": "q"}
        assert namespaces.module_globals("__main__") is vars(sys.modules["__main__"])


def test_where_no_module_stands_for_the_script_its_functions_have_globals_of_their_own(main, far):
    with far.here():
        del vars(sys.modules["__main__"])[scripts.STAND_IN]
        assert namespaces.module_globals("__main__") == {"__name__": "__main__"}


def test_a_function_finds_builtins_and_the_file_of_its_script(main, run, far):
    main.__file__ = "a script.py"
    run("def look():\n    return __name__, __file__, len([1])")
    assert far.ask(main.look) == ("__main__", "a script.py", 1)
    names = {"__builtins__": {"len": lambda _: 5}}
    with far.here():
        namespaces.globals_by_module["own"] = names
        function = namespaces.make_function("own", (lambda: len([1])).__code__, {}, None)
    assert function() == 5, "builtins that are there stay"
    assert function.__globals__ is names


def test_members_of_classes_are_found_by_their_dotted_names():
    class Base:
        def inherited(self): ...

    class Outer(Base):
        class Inner:
            def method(self): ...

        @classmethod
        def of_class(cls): ...

        @staticmethod
        def static(): ...

        number = 5

    member = namespaces.class_member
    assert member(Outer, "Inner") is Outer.Inner
    assert member(Outer, "Inner.method") is Outer.Inner.method
    assert member(Outer, "of_class") is Outer.of_class.__func__
    assert member(Outer, "static") is Outer.static
    assert member(Outer, "inherited") is None
    assert member(Outer, "number.real") is None
    assert member(Outer, "nothing") is None
    assert member(Outer, "nothing.more") is None


def test_a_definition_has_the_hosts_number_and_others_have_none(main, run, far):
    run("""
    class Meta(type):
        __hash__ = None
    def give():
        return give
    """)
    given = far.call(dumped(main.give))
    with far.here():
        assert namespaces.definition_id_of(given) is not None
        assert namespaces.definition_id_of(len) is None
        assert namespaces.definition_id_of(main.Meta("Unhashable", (), {})) is None
    assert far.ask(main.give) is main.give


def test_only_what_changed_is_loaded(main, run, far):
    """Guards: to rebuild what has not changed costs time, and undoes what the worker did to it."""
    run("""
    made = []
    class Noted:
        def __reduce__(self):
            return note, ()
    def note():
        made.append(1)
        return len(made)
    value, other = Noted(), 1
    def look():
        return value, other, len(made)
    """)
    assert far.ask(main.look) == (1, 1, 1)
    assert far.ask(main.look) == (1, 1, 1)
    main.other = 2
    assert far.ask(main.look) == (1, 2, 1)
