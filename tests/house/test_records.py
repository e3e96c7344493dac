"""Our dataclasses, beside those of the standard library: the same to everybody who looks."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest

from pidfdpool import records


@records.dataclass(frozen=True, slots=True)
class Frozen:
    """Doc."""

    first: int
    second: str = "two"
    made: list[int] = records.field(default_factory=list)

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("first")

    @property
    def twice(self) -> int:
        return 2 * self.first


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    first: int
    second: str = "two"
    made: list[int] = dataclasses.field(default_factory=list)


@records.dataclass(frozen=True, slots=True)
class Empty:
    pass


@records.dataclass(slots=True, eq=False)
class Mutable:
    number: int = 0


@pytest.mark.parametrize("arguments", [(1,), (1, "b"), (1, "b", [3])])
def test_it_is_made_shown_and_taken_apart_like_a_dataclass(arguments):
    ours, theirs = Frozen(*arguments), Standard(*arguments)
    assert repr(ours) == repr(theirs).replace("Standard", "Frozen")
    assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
    assert dataclasses.astuple(ours) == dataclasses.astuple(theirs)
    assert [field.name for field in dataclasses.fields(ours)] == ["first", "second", "made"]
    assert dataclasses.is_dataclass(Frozen)
    assert dataclasses.replace(ours, first=5) == records.replace(ours, first=5) == Frozen(5, *arguments[1:])
    assert (ours.twice, Frozen.__doc__, Frozen.__module__) == (2, "Doc.", __name__)


def test_what_it_compares_with():
    assert Frozen(1) == Frozen(1)
    assert Frozen(1) != Frozen(2)
    assert Frozen(1) != Standard(1)
    assert Empty() == Empty()
    assert hash(Empty()) == hash(Empty())
    assert Mutable() != Mutable()


def test_each_object_has_a_default_of_its_own():
    Frozen(1).made.append(3)
    assert Frozen(1).made == []


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((), {}, "first"),
        ((1, 2, 3, 4), {}, "positional"),
        ((1,), {"third": 3}, "third"),
        ((1,), {"first": 1}, "first"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments, keywords, message):
    for _ in range(2):  # the first object of a class is made in a way of its own
        with pytest.raises(TypeError, match=message):
            Frozen(*arguments, **keywords)


def test_it_is_checked_when_it_is_made():
    with pytest.raises(ValueError, match="first"):
        Frozen(-1)
    with pytest.raises(ValueError, match="first"):
        records.replace(Frozen(1), first=-1)


def test_a_frozen_one_cannot_be_changed():
    frozen = Frozen(1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        frozen.first = 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        del frozen.first
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError)):
        frozen.third = 3
    mutable = Mutable()
    mutable.number = 2
    assert mutable.number == 2
    with pytest.raises(AttributeError):
        mutable.other = 3


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_pickled_and_copied(protocol):
    value = Frozen(1, "b", [2])
    assert pickle.loads(pickle.dumps(value, protocol)) == value
    assert copy.copy(value) == copy.deepcopy(value) == value


def made_anew():
    """Return classes no object of which was made yet: ours, and the standard one."""
    fields = """
    first: int
    second: str = "two"
    made: list[int] = field(default_factory=list)
"""
    code = (
        "from __future__ import annotations\nfrom {0} import dataclass, field\n@dataclass(frozen=True, slots=True)\n"
    )
    names = {}
    for module, name in (("pidfdpool.records", "Ours"), ("dataclasses", "Theirs")):
        exec(f"{code.format(module)}class {name}:{fields}", names)
    return names["Ours"], names["Theirs"]


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("arguments", [(1,), (1, "b"), (1, "b", [3])])
def test_the_first_objects_of_a_class_are_made_as_all_others(number, arguments):
    ours, theirs = made_anew()
    for _ in range(number):
        assert dataclasses.astuple(ours(*arguments)) == dataclasses.astuple(theirs(*arguments))
        named = dict(zip(("first", "second", "made"), arguments, strict=False))
        assert dataclasses.astuple(ours(**named)) == dataclasses.astuple(theirs(**named))
    assert ours(1).made is not ours(1).made


@pytest.mark.parametrize(
    ("arguments", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"first": 1}), ((1,), {"other": 1})]
)
def test_the_first_object_of_a_class_gets_the_errors_of_a_function(arguments, named):
    ours, theirs = made_anew()
    with pytest.raises(TypeError) as expected:
        theirs(*arguments, **named)
    with pytest.raises(TypeError) as error:
        ours(*arguments, **named)
    assert str(error.value) == str(expected.value).replace("Theirs", "Ours")
