"""Each step of a pickle that can fail costs the item that it belongs to, and no neighbour."""

from __future__ import annotations

import copyreg
import pickle
import sys
import types

import cloudpickle
import pytest

from pidfdpool.serialization import payload, salvage
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from tests.serialization.test_salvage import HasSetter, Refuses, lost, rebuilt


def _refuse_if(refuse, *_):
    if refuse:
        raise ValueError("not this one")
    return "made"


class Sometimes:
    """It is rebuilt by one function that refuses for some."""

    def __init__(self, refuse):
        self.refuse = refuse

    def __reduce__(self):
        return _refuse_if, (self.refuse,)


class Made:
    """It is made by `__new__`, which may refuse, with or without keywords."""

    def __new__(cls, refuse=False, *, by_keyword=False):
        if (refuse or by_keyword) and sys.modules.get("refusing"):
            raise ValueError("not this one")
        self = super().__new__(cls)
        self.given = refuse, by_keyword
        return self

    def __getnewargs__(self):
        return (self.given[0],)

    def __eq__(self, other):
        return type(other) is type(self) and other.given == self.given

    __hash__ = None


class MadeByKeyword(Made):
    def __getnewargs_ex__(self):
        return (), {"by_keyword": self.given[1]}


class Stateful:
    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return type(other) is Stateful and other.value == self.value

    __hash__ = None


class SetByFunction(Stateful):
    def __eq__(self, other):
        return type(other) is SetByFunction and other.value == self.value

    __hash__ = None

    def __reduce__(self):
        return SetByFunction, (None,), self.value, None, None, _set_value


def _set_value(made, value):
    if value == "refuse":
        raise KeyError("no state")
    made.value = value


def _with_itself(*more):
    """Return a tuple that holds a list that holds the tuple."""
    ring: list = []
    around = (ring, *more)
    ring.append(around)
    return around


NEIGHBOURS = {
    "a call": Sometimes(False),
    "an object": Stateful(1),
    "an object made with arguments": Made(False),
    "an object made with keywords": MadeByKeyword(by_keyword=False),
    "an object set by a function": SetByFunction(1),
    "a class": Stateful,
    "tuples": ((1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
    "a tuple of one": (1,),
    "a tuple of two": (1, 2),
    "a tuple of three": (1, 2, 3),
    "a tuple of four": (1, 2, 3, 4),
    "lists": [[], [1], [1, 2]],
    "dictionaries": [{}, {1: 2}, {1: 2, 3: 4}],
    "a dictionary of one": {1: 2},
    "a set": {1, 2},
    "a frozen set": frozenset([1, 2]),
    "bytes": bytearray(b"12"),
}


BAD = {
    "a call": Refuses(),
    "a tuple": (1, 2, 3, Refuses()),
    "an object set by a function": HasSetter(),
    "a list": [1, Refuses()],
    "a tuple of one": (Refuses(),),
    "a tuple of two that holds itself": _with_itself(Refuses()),
    "a tuple of three that holds itself": _with_itself(1, Refuses()),
    "a tuple of many that holds itself": _with_itself(1, 2, 3, 4, Refuses()),
    "a state": Stateful(Refuses()),
    "a state for a function": SetByFunction(Refuses()),
    "a state that a function refuses": SetByFunction("refuse"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_the_neighbours_of_a_failed_item_are_whole(bad):
    for what, good in NEIGHBOURS.items():
        made = rebuilt([good, bad, good, 1, bad, [good]])
        assert set(lost(made)) == {1, 4}, what
        whole = pickle.loads(pickle.dumps(good))
        assert [made[at] for at in (0, 2, 3, 5)] == [whole, whole, 1, [whole]], what


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_tuple_is_lost_with_any_of_its_members(size):
    for at in range(size):
        whole = tuple(range(size))
        made = rebuilt([whole, (*whole[:at], Refuses(), *whole[at + 1 :]), whole])
        assert set(lost(made)) == {1}
        assert made[0] == made[2] == whole


def test_what_a_failed_item_shares_with_others_is_not_lost():
    shared = Stateful(1)
    bad_ones = (shared, Refuses()), (shared, 1, Refuses()), (shared, 1, 2, Refuses()), {"a": shared, "b": Refuses()}
    for bad in bad_ones:
        made = rebuilt([1, bad, shared, (shared,)])
        assert set(lost(made)) == {1}
        assert made[2] == shared
        assert made[3][0] is made[2]


def test_what_failed_for_one_item_is_tried_for_the_next():
    """Guards: a function that had failed once was taken for failed itself wherever it was met again."""
    made = rebuilt([Sometimes(True), Sometimes(False), (Sometimes(True),), [Sometimes(False)]])
    assert lost(made) == {0: ValueError, 2: ValueError}
    assert (made[1], made[3]) == ("made", ["made"])


def test_objects_that_refuse_to_be_made_are_lost_with_what_holds_them(monkeypatch):
    items = [Made(True), Made(), MadeByKeyword(by_keyword=True), MadeByKeyword(), {"a": Made(True)}]
    buffers = payload.dumps(items)
    monkeypatch.setitem(sys.modules, "refusing", types.ModuleType("refusing"))
    made = rebuilt(None, buffers)
    assert lost(made) == dict.fromkeys((0, 2, 4), ValueError)
    assert (made[1], made[3]) == (Made(), MadeByKeyword())


def test_a_dictionary_is_lost_with_a_key_or_a_value_of_one_or_several_entries():
    key = (Refuses(),)
    items = [{key: 1}, {1: 2, key: 3}, {1: Refuses()}, {1: 2, 2: Refuses()}, {1: 2}]
    made = rebuilt(items)
    assert set(lost(made)) == {0, 1, 2, 3}
    assert made[4] == {1: 2}


@pytest.mark.parametrize("code", [0xF0, 0xFFF0, 0xFFFFF0], ids=["one byte", "two bytes", "four bytes"])
def test_names_that_are_registered_by_a_number_may_be_missing_here(code):
    copyreg.add_extension(__name__, "Sometimes", code)
    try:
        buffers = payload.dumps([1, Refuses(), Sometimes, "two"])
        assert b"Sometimes" not in buffers[0]
        made = rebuilt(None, buffers)
        assert lost(made) == {1: ValueError}
        assert made[2] is Sometimes
    finally:
        copyreg.remove_extension(__name__, "Sometimes", code)
    copyreg._extension_cache.pop(code, None)
    made = rebuilt(None, buffers)
    assert lost(made) == {1: ValueError, 2: ValueError}
    assert (made[0], made[3]) == (1, "two")


def test_a_global_that_is_missing_costs_its_item():
    data = pickle.dumps([Refuses(), Sometimes, (Sometimes,), 4], 5).replace(b"Sometimes", b"Nowhere__")
    made = rebuilt(None, [data])
    assert lost(made) == {0: ValueError, 1: AttributeError, 2: AttributeError}
    assert made[3] == 4


def test_read_only_buffers_beside_the_pickle_stay_whole():
    items = [Refuses(), pickle.PickleBuffer(b"a" * 50_000), Refuses(), pickle.PickleBuffer(bytearray(b"b" * 50_000))]
    made = salvage.load_items([bytes(each) for each in OutOfBandPickle(items).buffers()], in_host=True)
    assert lost(made) == {0: ValueError, 2: ValueError}
    assert [bytes(made[at][:1]) for at in (1, 3)] == [b"a", b"b"]


class Node:
    """A part of a tree that knows what it is in."""

    def __init__(self, *below):
        self.above, self.below = None, list(below)
        for each in below:
            if type(each) is type(self):
                each.above = self


def test_what_refers_to_a_failed_object_that_was_not_complete_is_lost_with_it():
    """Guards: such an item seemed to be whole, and what it was in had no attributes."""
    first, second, alone = Node(), Node("a leaf"), Node(Node())
    tree = Node(first, Node(second), Refuses())
    whole = Node(Node(), Node())
    items = [alone, first, whole.below[0], second, tree, whole.below[1], "other", alone]
    made = rebuilt(items)
    assert set(lost(made)) == {1, 3, 4}
    assert made[0].below[0].above is made[0] is made[7]
    assert made[2].above is made[5].above
    assert made[2].above.below == [made[2], made[5]]
    assert made[6] == "other"


class Around:
    """It is made of a list that holds it."""

    def __init__(self, parts):
        self.parts = parts

    def __reduce__(self):
        return Around, (self.parts,)


def test_an_object_that_is_made_of_what_holds_it_is_lost_with_that():
    bad, good = Around([]), Around([])
    bad.parts += [bad, Refuses()]
    good.parts.append(good)
    made = rebuilt(["first", bad, ["neighbour"], good, bad, good.parts])
    assert set(lost(made)) == {1, 4}
    assert made[2] == ["neighbour"]
    assert type(made[3]) is Around
    assert (made[0], made[3].parts[0].parts) == ("first", made[5])


def test_a_list_that_holds_itself_among_its_items_loses_only_the_failed_one():
    items: list = ["first", Refuses(), "third"]
    items.append(items)
    items.append([items, Refuses()])
    made = rebuilt(items)
    assert set(lost(made)) == {1, 4}
    assert made[3] is made


# ---- two forms of one list -------------------------------------------------------------------------------------


def either(by_name, by_value):
    return [pickle.dumps(payload.ReferenceOrValue(pickle.dumps(by_name, 5), pickle.dumps(by_value, 5)), 5)]


def test_each_item_comes_from_the_first_form_if_it_can_and_from_the_second_if_not():
    made = rebuilt(None, either(["first", Refuses(), Refuses()], ["unused", "second", Refuses()]))
    assert made[:2] == ["first", "second"]
    assert lost(made) == {2: ValueError}
    assert rebuilt(None, either(["first", 1], Refuses())) == ["first", 1], "the second is not looked at"
    assert rebuilt(None, either([], ["second"])) == []


def test_a_first_form_that_is_lost_as_a_whole_is_replaced_by_the_second():
    assert rebuilt(None, either(Refuses(), ["second"])) == ["second"]
    assert rebuilt(None, either(Refuses(), Refuses())) is None
    assert rebuilt(None, either({"no": "list"}, ["second"])) is None


# ---- with a script ---------------------------------------------------------------------------------------------


def test_calls_that_carry_globals_and_buffers_are_rebuilt_without_the_failed_one(main, run, far):
    run("number = 2\ndef double(x): return number * len(x)\nclass Bad:\n    def __reduce__(self): return no, ()")
    run("def no(): raise ValueError('not here')")
    large = [b"a" * 50_000, bytearray(b"b" * 60_000)]
    items = [(main.double, large[0]), main.Bad(), (main.double, pickle.PickleBuffer(large[1]))]
    buffers = [bytes(each) for each in OutOfBandPickle(items).buffers()]
    assert len(buffers) > 1
    with far.here():
        made = salvage.load_items(buffers, in_host=False)
        assert [function(data) for function, data in (made[0], made[2])] == [100_000, 120_000]
    assert lost(made) == {1: ValueError}


@pytest.mark.parametrize("in_host", [True, False], ids=["in the host", "in a worker"])
def test_a_result_does_not_change_the_classes_of_the_host(in_host):
    class Own:
        limit = 1

    by_value = cloudpickle.dumps([Own(), Refuses()], 5)
    Own.limit = 2
    made = salvage.load_items([by_value], in_host=in_host)
    assert type(made[0]) is Own
    assert Own.limit == (2 if in_host else 1), "only what workers have is the host's to change"


def test_neither_do_those_that_are_in_one_of_two_forms():
    class Own:
        limit = 1

    both = payload.ReferenceOrValue(pickle.dumps(Refuses(), 5), cloudpickle.dumps([Own(), Refuses()], 5))
    Own.limit = 2
    made = salvage.load_items([pickle.dumps(both, 5)], in_host=True)
    assert (type(made[0]), Own.limit, lost(made)) == (Own, 2, {1: ValueError})


def test_a_failed_item_raises_why_it_failed_when_it_is_used_as_arguments():
    error = LookupError("why")
    with pytest.raises(LookupError) as caught:
        (lambda *_: None)(*salvage.FailedItem(error))
    assert caught.value is error
