"""What travels of a log record: plain data of a bounded size, whatever the program has put into the record."""

from __future__ import annotations

import logging
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidfdpool.serialization import log_records
from pidfdpool.transport.frame_rules import MAX_LOG_RECORD
from tests.fuzzing.__main__ import run

FIELDS = {
    "logger": "app", "name": "app", "levelno": 20, "levelname": "INFO", "msg": "hello", "exc_text": None,
    "stack_info": None, "pathname": "a.py", "lineno": 1, "funcName": "f", "created": 1.0, "thread": 1,
    "threadName": "T", "taskName": None, "process": 7, "extra": {},
}  # fmt: skip


def there(**changed):
    """Return the fields after the way to the host."""
    form, fields = log_records.loads(log_records.dumps({**FIELDS, **changed}))
    assert form is log_records.RECORD
    return fields


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(PLAIN)
def test_plain_data_travels_as_it_is(value):
    assert there(extra={"value": value})["extra"] == {"value": value}


class Hostile(str):
    def __repr__(self):
        raise RuntimeError("no")

    __str__ = __len__ = __getitem__ = __repr__


def test_a_text_may_hold_half_of_a_surrogate_pair():
    assert there(msg="lone \ud800")["msg"] == "lone \ud800"


def test_what_is_not_plain_is_told_by_its_repr():
    nameless = type("Nameless", (), {"__repr__": Hostile("").__str__})()
    odd = {"object": logging, "text": Hostile("text"), "of an own class": nameless}
    found = there(extra={**odd, "set": {1, 2}, "number": 1 << 100_000})["extra"]
    assert found["object"] == repr(logging)
    assert (found["text"], type(found["text"])) == ("text", str)
    assert "whose repr() fails" in found["of an own class"]
    assert found["set"] == {1, 2}
    assert found["number"] == "<an integer of 100001 bits>"


def test_containers_that_hold_themselves_or_many_are_bounded():
    circle: list[object] = []
    circle.append(circle)
    wide: object = 1
    for _ in range(7):
        wide = [wide] * 5
    found = there(extra={"circle": circle, "many": list(range(100_000)), "wide": wide})["extra"]
    assert repr(found["circle"]).count("[") < 20
    assert found["many"].endswith("more characters)")


@pytest.mark.parametrize(
    "fields",
    [
        {"msg": "x" * (10 << 20)},
        {"msg": "\U0001f600" * 100_000, "exc_text": "\U0001f600" * 100_000},
        {"extra": {f"name {n}": "x" * 1000 for n in range(5000)}},
        {"extra": {f"name {n}": n for n in range(100_000)}},
        {"msg": {n: f"{n:500}" for n in range(1500)}},
        {"msg": {n: f"{n:500}" for n in range(1500)}, "exc_text": "\U0001f600" * 100_000},
        {"name": "x" * (1 << 20), "pathname": "x" * (1 << 20), "funcName": "x" * (1 << 20)},
    ],
    ids=[
        "a long text",
        "two of wide characters",
        "long attributes",
        "many attributes",
        "a large dictionary",
        "a large dictionary beside wide characters",
        "names",
    ],
)
def test_a_record_that_is_too_large_is_cut(fields):
    data = log_records.dumps({**FIELDS, **fields})
    assert len(data) <= MAX_LOG_RECORD
    log_records.loads(data)


class Called:
    def __reduce__(self):
        return pytest.fail, ("it was called",)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"N.",
        b"\x80\x05garbage",
        pickle.dumps([1]),
        pickle.dumps({}),
        pickle.dumps({**FIELDS, "more": 1}),
        pickle.dumps({**FIELDS, "levelno": "20"}),
        pickle.dumps({**FIELDS, "extra": {1: 2}}),
        pickle.dumps({**FIELDS, "msg": Called()}),
        pickle.dumps({**FIELDS, "name": 5}),
        pickle.dumps({**FIELDS, "extra": {"class": logging.Logger}}),
    ],
)
def test_what_is_no_record_is_refused_and_calls_nothing(data):
    with pytest.raises(ValueError, match="it|its|an attribute"):
        log_records.loads(data)


def test_whatever_bytes_come_they_are_a_record_or_refused():
    run("log_records", 1, 3000)
