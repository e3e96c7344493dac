"""Classes by value: what they are in a worker, and what making them again does not do."""

from __future__ import annotations

import _pickle
import copyreg
import ctypes
import pickle
import sys
import typing

import pytest
from cloudpickle import cloudpickle as internals

from pidfdpool.serialization import class_reducers, payload, reconstructors, scripts
from tests.serialization.far_side import FarSide, dumped

since_314 = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in 3.14")


@pytest.fixture
def run(main):
    """Return a function that runs statements as the script's, without this file's `from __future__`."""
    return lambda code: exec(compile(code, "<string>", "exec", dont_inherit=True), vars(main))


def arrived(far, value):
    """Return what a value, and a lambda that makes it travel by value, is on the other side."""
    return far.load(payload.dumps_by_value([value, lambda: 0], None))[0]


# ---- contents ----------------------------------------------------------------------------------------------------

SLOTS = """
import dataclasses, typing, enum
class Plain:
    pass
class Slotted:
    __slots__ = ("a", "__b")
    def __init__(self):
        self.a, self.__b = 1, 2
class One:
    __slots__ = "only"
class Below(Slotted):
    __slots__ = ()
class Mixed(Below):
    __slots__ = ["c", "__dict__"]
@dataclasses.dataclass(slots=True)
class Data:
    x: int = 0
class Row(typing.NamedTuple):
    x: int
    y: int = 2
class Longer(Row):
    __slots__ = ()
    def sum(self): return self.x + self.y
class Of(typing.Generic[typing.TypeVar("T")]):
    __slots__ = ("z",)
class Keys(typing.TypedDict):
    x: int
def give(): return Plain, Slotted, One, Below, Mixed, Data, Row, Longer, Of, Keys
"""


def test_slots_are_slots(main, run, far):
    run(SLOTS)
    plain, slotted, one, below, mixed, data, row, longer, of, keys = far.call(dumped(main.give))
    for kind in (slotted, below, data, one):
        assert not hasattr(kind.__new__(kind), "__dict__"), kind
    for kind in (plain, mixed):
        assert hasattr(kind(), "__dict__")
    made = slotted()
    assert (made.a, made._Slotted__b) == (1, 2)
    one.only.__set__(holder := one(), 5)
    assert holder.only == 5
    mixed.c.__set__(holder := mixed(), 6)
    assert holder.c == 6
    of.z.__set__(holder := of(), 7)
    assert holder.z == 7
    assert [kind.__dict__.get("__slots__") for kind in (slotted, one, below, mixed, of)] == [
        ("a", "__b"), "only", (), ["c", "__dict__"], ("z",),
    ]  # fmt: skip
    assert "__slots__" not in vars(plain)
    assert repr(data(3)) == "Data(x=3)"
    assert (row(1), longer(1).sum()) == ((1, 2), 3)
    assert not hasattr(longer(1), "__dict__")
    assert keys(x=1) == {"x": 1}
    assert [kind.__qualname__ for kind in (row, longer, of, keys)] == ["Row", "Longer", "Of", "Keys"]


def test_local_classes_have_their_qualified_names_and_slots(far):
    class Outer:
        __slots__ = ("a",)

        class Inner:
            pass

    made = arrived(far, Outer)
    name = f"{test_local_classes_have_their_qualified_names_and_slots.__name__}.<locals>.Outer"
    assert (made.__name__, made.__qualname__) == ("Outer", name)
    assert (made.Inner.__name__, made.Inner.__qualname__) == ("Inner", f"{name}.Inner")
    assert not hasattr(made(), "__dict__")
    assert made.__module__ == __name__


def test_looking_at_a_class_does_not_change_what_is_sent(main, run):
    run("""
class Own:
    pass
class Slotted:
    __slots__ = ("a",)
class Below(Slotted):
    pass
def use(): return Own, Slotted, Below
""")
    before = dumped(main.use)
    for kind in (main.Own, main.Slotted, main.Below):
        copyreg._slotnames(kind)
        assert kind.__annotations__ == {}
        assert "__slotnames__" in vars(kind)
    assert dumped(main.use) == before


def test_only_the_reductions_of_classes_are_corrected():
    for reduced in (NotImplemented, "a name", (internals._make_skeleton_class, ()), (len, ([],), None, None)):
        assert class_reducers.fixed_reduction(reduced, int) is reduced


# ---- annotations -------------------------------------------------------------------------------------------------


@since_314
def test_annotations_of_a_class_arrive_unevaluated_or_as_the_library_left_them(main, run, far):
    import annotationlib

    run("""
class Lazy:
    a: Missing
    b: 'text'
class Assigned:
    a: int
Assigned.__annotations__ = {"c": str}
class Evaluated:
    d: int
class Without:
    pass
def give(): return Lazy, Assigned, Evaluated, Without
""")
    assert main.Evaluated.__annotations__ == {"d": int}
    lazy, assigned, evaluated, without = far.call(dumped(main.give))
    assert annotationlib.get_annotations(lazy, format=annotationlib.Format.STRING) == {"a": "Missing", "b": "text"}
    with pytest.raises(NameError):
        _ = lazy.__annotations__
    assert assigned.__annotations__ == {"c": str}
    assert evaluated.__annotations__ == {"d": int}
    assert without.__annotations__ == {}
    assert "__annotate_func__" not in vars(without) or vars(without)["__annotate_func__"] is None
    assert "__annotations__" not in vars(without)


# ---- enumerations ------------------------------------------------------------------------------------------------


def test_members_of_an_enum_have_the_attributes_that_their_init_gave_them(main, run, far):
    run("""
import enum
made = []
class Planet(enum.Enum):
    EARTH = (6, 2)
    MARS = (3, 1)
    def __init__(self, mass, radius):
        made.append(self.name)
        self.mass = mass
        self._own = radius
    @property
    def gravity(self): return self.mass
class Bits(enum.Flag):
    A = 1
    B = 2
def give(): return Planet, Bits, made
""")
    planet, bits, made = far.call(dumped(main.give))
    assert made == ["EARTH", "MARS"], "what the host's own did is not repeated"
    assert [(each.name, each.value, each.mass, each.gravity) for each in planet] == [
        ("EARTH", (6, 2), 6, 6), ("MARS", (3, 1), 3, 3),
    ]  # fmt: skip
    assert planet is not main.Planet
    assert bits(3) == bits.A | bits.B


# ---- what is not repeated ----------------------------------------------------------------------------------------

HOOKED = """
import typing
seen = []
class Meta(type):
    def __new__(cls, name, bases, names, **keywords):
        seen.append(("new", name))
        return super().__new__(cls, name, bases, names)
    def __init__(cls, name, bases, names, **keywords):
        seen.append(("init", name))
        super().__init__(name, bases, names)
class Made(metaclass=Meta, option=1):
    number = 1
class Hooked:
    def __init_subclass__(cls, *, needed, **others):
        super().__init_subclass__(**others)
        seen.append(("hook", cls.__name__))
class First(Hooked, needed=1):
    number = 2
class Second(First, needed=1):
    pass
T = typing.TypeVar("T")
class Box(Hooked, typing.Generic[T], needed=1):
    pass
class Full(Box[int], needed=1):
    pass
def give(): return Made, Hooked, First, Second, Box, Full, list(seen)
"""


def test_neither_metaclasses_nor_hooks_of_the_users_run_again(main, run, far):
    run(HOOKED)
    before = list(main.seen)
    made, hooked, first, second, box, full, seen = far.call(dumped(main.give))
    assert seen == before
    assert made.number == 1
    assert type(made).__name__ == "Meta"
    assert type(made) is not main.Meta
    assert (first.number, second.__mro__[1:3]) == (2, (first, hooked))
    assert full.__orig_bases__[0].__origin__ is box
    assert box.__parameters__ == (full.__orig_bases__[0].__origin__.__parameters__[0],)
    assert full.__bases__ == (box,)
    hook = vars(hooked)["__init_subclass__"]
    assert type(hook) is classmethod
    with pytest.raises(TypeError, match="needed"):
        type("Own", (first,), {})
    type("Own", (second,), {}, needed=1)
    assert far.names["seen"][-1] == ("hook", "Own")
    type(made)("Another", (), {})
    assert far.names["seen"][-2:] == [("new", "Another"), ("init", "Another")]


def test_a_hook_is_there_again_if_the_class_cannot_be_made(main, run, far):
    run(HOOKED)
    _, hooked, *_ = far.call(dumped(main.give))
    hook = vars(hooked)["__init_subclass__"]
    with far.here(), pytest.raises(TypeError):
        reconstructors.make_class(type, "Bad", (hooked, bool), {}, "an id", None)
    assert vars(hooked)["__init_subclass__"] is hook


def test_the_hooks_of_libraries_do_run():
    """They may be what makes the class what it is; and a library does not count on being called once."""

    class Library:
        seen: typing.ClassVar = []

        def __init_subclass__(cls):
            Library.seen.append(cls.__name__)

    far = FarSide()
    with far.here():
        made = reconstructors.make_class(type, "New", (Library,), {"number": 1}, "an id of a class", None)
        assert reconstructors.make_class(type, "New", (Library,), {}, "an id of a class", None) is made
        assert reconstructors.make_class(type, "New", (Library,), {}, "another id", None) is not made
    assert Library.seen == ["New", "New"]
    assert (made.__name__, made.number, made.__bases__) == ("New", 1, (Library,))


def test_the_hook_that_would_be_called_is_looked_for_in_each_base(main, run, far):
    run(HOOKED)
    _, hooked, first, *_ = far.call(dumped(main.give))

    class Library:
        def __init_subclass__(cls): ...

    class Covered(hooked, needed=1):
        def __init_subclass__(cls): ...

    with far.here():
        assert reconstructors._first_with_hook((int, first)) is hooked
        assert reconstructors._first_with_hook((Library, first)) is hooked
        assert reconstructors._first_with_hook((Covered,)) is None, "a library's is called first"
        assert reconstructors._first_with_hook((int, Library)) is None
        assert reconstructors._first_with_hook(()) is None


# ---- what is left to the script ----------------------------------------------------------------------------------

DEFERRED = {
    "a metaclass": "class M(type): pass\nclass C(metaclass=M): pass",
    "a hook": "class B:\n    def __init_subclass__(cls): pass\nclass C(B): pass",
    "a hook further up": "class A:\n    def __init_subclass__(cls): pass\nclass B(A): pass\nclass C(B): pass",
}
SENT = {
    "a plain class": "class C: pass",
    "a hook of its own": "class C:\n    def __init_subclass__(cls): pass",
    "a standard metaclass": "import abc\nclass C(abc.ABC): pass",
    "a standard hook": "import typing\nclass C(typing.Generic[typing.TypeVar('T')]): pass",
    "an enum": "import enum\nclass C(enum.Enum):\n    A = 1",
}


@pytest.mark.parametrize(
    ("text", "deferred"),
    [*((text, True) for text in DEFERRED.values()), *((text, False) for text in SENT.values())],
    ids=[*DEFERRED, *SENT],
)
def test_a_class_that_the_users_code_helps_to_make_is_left_to_the_script(main, run, tmp_path, text, deferred):
    path = tmp_path / "script.py"
    path.write_text(text + '\nif __name__ == "__main__":\n    pass\n')
    run(text + "\ndef look(): return C\ndef without(): return 1")
    assert not payload.needs_script([dumped(main.look)])
    main.__file__ = str(path)
    assert scripts.current().can_run_again
    assert payload.needs_script([dumped(main.look)]) is deferred
    assert not payload.needs_script([dumped(main.without)])
    path.write_text('if __name__ == "__main__":\n    C = 1\n')
    main.__file__ = f"{tmp_path}/./script.py"
    assert scripts.current().names == frozenset()
    assert not payload.needs_script([dumped(main.look)]), "the script does not make it"


def test_ctypes_types_say_that_they_cannot_travel(main, run, far):
    class Point(ctypes.Structure):
        _fields_: typing.ClassVar = [("x", ctypes.c_int)]

    message = "Point is a ctypes type, which cannot be pickled by value"
    with pytest.raises(_pickle.PicklingError, match=message):
        payload.dumps_by_value(Point, None)
    run("import ctypes\nclass Point(ctypes.Structure):\n    pass\ndef look():\n    return Point")
    with pytest.raises(pickle.PicklingError, match=f"^{message}"):
        class_reducers.reduce_class(main.Point, ("__main__", "Point"))
    with pytest.raises(NameError, match="is a ctypes type"):
        far.call(dumped(main.look))()
    assert arrived(far, ctypes.c_int) is ctypes.c_int
    assert arrived(far, ctypes.c_int(5)).value == 5
