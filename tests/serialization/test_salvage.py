"""A list of which some items cannot be rebuilt: all the others are, whatever they share."""

from __future__ import annotations

import pickle

import pytest

from pidfdpool.serialization import payload, salvage
from pidfdpool.serialization.out_of_band import OutOfBandPickle
from pidfdpool.serialization.scripts import NeedsScript


class Refuses:
    """Its constructor refuses."""

    def __reduce__(self):
        return _refuse, ("no",)


class Holds:
    """An object with attributes, which it may refuse to take."""

    def __init__(self, **held):
        vars(self).update(held)

    def __setstate__(self, state):
        if state.get("refuse"):
            raise LookupError("not this")
        vars(self).update(state)


class HasSetter:
    """Its state is set by a function."""

    def __reduce__(self):
        return HasSetter, (), {"a": 1}, None, None, _refuse_state


class Appended(list):
    """It takes its items by a method of its own."""

    def extend(self, items):
        raise OverflowError("full")

    append = extend


class Hashed:
    """It can be put into a set or a dictionary, but its hash raises in the end."""

    hashable = True

    def __hash__(self):
        if not Hashed.hashable:
            raise TypeError("no hash")
        return 1


def _refuse(*_):
    raise ValueError("not here")


def _refuse_state(*_):
    raise KeyError("no state")


def _need_script(*_):
    raise NeedsScript("name")


def rebuilt(items, buffers=None):
    return salvage.load_items(buffers or payload.dumps(items), in_host=True)


def lost(items):
    """Return where items failed, and with which error."""
    return {at: type(item.error) for at, item in enumerate(items) if type(item) is salvage.FailedItem}


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (Refuses(), ValueError),
        ((1, Refuses()), ValueError),
        ((1, 2, Refuses(), 4, 5), ValueError),
        ([1, [Refuses()]], ValueError),
        ({"a": {"b": Refuses()}}, ValueError),
        ({"a": 1, "b": 2, "c": [Refuses()]}, ValueError),
        (Holds(a=Refuses()), ValueError),
        (Holds(refuse=True), LookupError),
        (HasSetter(), KeyError),
        (Appended([1, 2]), OverflowError),
        (Appended([1]), OverflowError),
    ],
)
def test_items_around_a_failed_one_are_rebuilt(item, why):
    shared = {"of": "all"}
    items = [1, "two", (shared, 3), item, (shared, [4]), None]
    made = rebuilt(items)
    assert lost(made) == {3: why}
    assert [*made[:3], *made[4:]] == [*items[:3], *items[4:]]
    assert made[2][0] is made[4][0], "what items share they share here, too"
    with pytest.raises(why):
        tuple(made[3])


@pytest.mark.parametrize("count", [1, 2, 999, 1000, 1001, 2500])
def test_lists_of_any_length(count):
    """A pickle holds items in batches of 1000, and a single item in another way."""
    for at in {0, count // 2, count - 1}:
        items = [*range(at), Refuses(), *range(at + 1, count)]
        made = rebuilt(items)
        assert lost(made) == {at: ValueError}
        assert made[:at] + made[at + 1 :] == items[:at] + items[at + 1 :]
    assert rebuilt(list(range(count))) == list(range(count))


def test_only_items_that_refer_to_a_failed_object_fail():
    bad, good = Holds(refuse=True), Holds(name="good")
    pair = [bad, good]
    made = rebuilt([pair, bad, good, (good, 1), [bad], {"x": pair}])
    assert lost(made) == {0: LookupError, 1: LookupError, 4: LookupError, 5: LookupError}
    assert made[2].name == "good"
    assert made[3][0] is made[2], "though it was first met in an item that is lost"


def test_an_item_that_refers_to_itself():
    ring: list = [Refuses()]
    ring.append(ring)
    whole = ([],)
    whole[0].append(whole)
    made = rebuilt([1, ring, whole, 2])
    assert lost(made) == {1: ValueError}
    assert made[2][0][0] is made[2]
    assert (made[0], made[3]) == (1, 2)


def test_sets_and_dictionaries_with_unhashable_members():
    items = [{Hashed(): 1}, {Hashed()}, frozenset([Hashed()]), 7]
    buffers = payload.dumps(items)
    Hashed.hashable = False
    try:
        made = rebuilt(None, buffers)
    finally:
        Hashed.hashable = True
    assert lost(made) == dict.fromkeys((0, 1, 2), TypeError)
    assert made[3] == 7


def test_out_of_band_buffers_stay_with_their_items():
    items = [b"x", pickle.PickleBuffer(b"a" * 50_000), Refuses(), pickle.PickleBuffer(bytearray(b"b" * 50_000))]
    buffers = [bytes(buffer) for buffer in OutOfBandPickle(items).buffers()]
    assert len(buffers) == 3
    made = salvage.load_items(buffers, in_host=True)
    assert lost(made) == {2: ValueError}
    assert [bytes(made[at]) for at in (0, 1, 3)] == [b"x", b"a" * 50_000, b"b" * 50_000]


def test_a_class_that_is_not_found_is_rebuilt_by_value():
    """If workers cannot import a module, its objects come in two forms, and each item uses one that works."""
    by_name = pickle.dumps([1, Holds(a=1), Refuses()], 5).replace(
        b"tests.serialization.test_salvage", b"tests.serialization.none_salvage"
    )
    by_value = pickle.dumps([1, "by value", Refuses()], 5)
    either = pickle.dumps(payload.ReferenceOrValue(by_name, by_value), 5)
    made = rebuilt(None, [either])
    assert made[:2] == [1, "by value"]
    assert lost(made) == {2: ValueError}


def test_payloads_that_are_no_list_or_need_the_script():
    assert rebuilt({"a": Refuses()}) is None
    assert rebuilt(Refuses()) is None

    class Needs:
        def __reduce__(self):
            return _need_script, ()

    with pytest.raises(NeedsScript):
        rebuilt(None, [pickle.dumps([1, Needs()], 5)])
