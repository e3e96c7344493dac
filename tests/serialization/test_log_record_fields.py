"""The fields of a log record and of a warning: of which types they are, and how much of each travels."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest

from pidfdpool.serialization import log_records
from pidfdpool.transport.frame_rules import MAX_LOG_RECORD
from tests.serialization.test_log_records import FIELDS, there

CAUGHT = {
    "text": "old", "category": ["builtins", "UserWarning"], "filename": "a.py", "lineno": 3, "module": "a",
    "line": "a()", "created": 1.5, "process": 7,
}  # fmt: skip
TEXTS = ("logger", "name", "levelname", "pathname")
TEXTS_OR_NONE = ("exc_text", "stack_info", "funcName", "threadName")
LINES = ("levelno", "lineno", "process")
ANY = ("msg", "taskName")


def accepts(fields, **changed):
    ((name, value),) = changed.items()
    with suppress(ValueError):
        return log_records.loads(pickle.dumps({**fields, **changed}))[1] == {**fields, **changed}
    with pytest.raises(ValueError, match=f"^its field {name} is {type(value).__name__}$"):
        log_records.loads(pickle.dumps({**fields, **changed}))
    return False


def test_each_field_of_a_record_has_its_type():
    values = {"text": "a", "none": None, "int": 1, "float": 1.5, "dict": {"a": 1}, "bytes": b"a"}
    allowed = {
        **{name: {"text"} for name in TEXTS}, **{name: {"text", "none"} for name in TEXTS_OR_NONE},
        **{name: {"int"} for name in LINES}, **{name: set(values) for name in ANY}, "created": {"int", "float"},
        "thread": {"int", "none"}, "extra": {"dict"},
    }  # fmt: skip
    assert allowed.keys() == FIELDS.keys()
    for name, kinds in allowed.items():
        assert {kind for kind, value in values.items() if accepts(FIELDS, **{name: value})} == kinds, name


def test_each_field_of_a_warning_has_its_type():
    values = {"text": "a", "none": None, "int": 1, "float": 1.5, "list": ["a"], "bytes": b"a"}
    allowed = {
        "text": {"text"}, "category": {"list"}, "filename": {"text"}, "lineno": {"int"}, "module": {"text", "none"},
        "line": {"text", "none"}, "created": {"int", "float"}, "process": {"int"},
    }  # fmt: skip
    for name, kinds in allowed.items():
        assert {kind for kind, value in values.items() if accepts(CAUGHT, **{name: value})} == kinds, name


@pytest.mark.parametrize("fields", [FIELDS, CAUGHT], ids=["a record", "a warning"])
def test_no_field_may_be_missing_or_more(fields):
    form, found = log_records.loads(log_records.dumps(fields))
    assert form is (log_records.RECORD if fields is FIELDS else log_records.WARNING)
    assert found == fields
    for name in fields:
        less = {other: value for other, value in fields.items() if other != name}
        with pytest.raises(ValueError, match="its fields are not those of a record"):
            log_records.loads(pickle.dumps(less))
    with pytest.raises(ValueError, match="its fields are not those of a record"):
        log_records.loads(pickle.dumps({**fields, "another": 1}))


def test_each_refusal_says_what_is_wrong():
    for data, why in (
        (pickle.dumps([1]), "it has no fields"),
        (b"garbage", "it is no plain data: "),
        (pickle.dumps({**FIELDS, "extra": {1: 2}}), "an attribute of it has no name"),
        (pickle.dumps({**FIELDS, "msg": KeyError}), "it is no plain data: UnpicklingError: it names "),
    ):
        with pytest.raises(ValueError, match=f"^{why}"):
            log_records.loads(data)


# ---- how much travels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["msg", "exc_text"])
def test_a_long_text_is_cut_after_its_first_64_k(name):
    assert there(**{name: "x" * 65_536})[name] == "x" * 65_536
    assert there(**{name: "x" * 65_535 + "yz"})[name] == "x" * 65_535 + "y... (1 more characters)"


def test_the_texts_of_a_record_that_is_still_too_large_are_cut_after_4_k():
    wide = "\U0001f600" * 65_536
    sent = {"msg": wide, "exc_text": wide, "stack_info": wide, "pathname": wide, "name": wide}
    assert len(pickle.dumps(sent)) > MAX_LOG_RECORD
    found = there(**sent)
    assert {found[name] for name in sent} == {wide[:4096] + f"... ({65_536 - 4096} more characters)"}
    assert found["levelno"] == 20


def test_bytes_that_are_long_become_text():
    assert there(msg=b"x" * 65_536)["msg"] == b"x" * 65_536
    found = there(msg=b"x" * 65_537)["msg"]
    assert found == "b'" + "x" * 65_534 + "... (4 more characters)"


def test_integers_have_4096_bits_at_most():
    for number in ((1 << 4096) - 1, -(1 << 4096) + 1):
        assert there(msg=number)["msg"] == number
    assert there(msg=1 << 4096)["msg"] == "<an integer of 4097 bits>"


def nested(levels, kind=list):
    value = kind([1])
    for _ in range(levels - 1):
        value = kind([value])
    return value


@pytest.mark.parametrize("kind", [list, tuple, frozenset])
def test_containers_are_eight_deep_at_most(kind):
    assert there(msg=nested(8, kind))["msg"] == nested(8, kind)
    found = there(msg=nested(9, kind))["msg"]
    for _ in range(8):
        (found,) = found
    assert found == repr(kind([1]))


def test_attributes_count_as_one_level():
    assert there(extra={"value": nested(7)})["extra"]["value"] == nested(7)
    assert there(extra={"value": nested(8)})["extra"]["value"] != nested(8)


def test_a_record_has_2000_parts_at_most():
    assert there(msg=list(range(1990)))["msg"] == list(range(1990))
    assert there(msg=list(range(2000)))["msg"] == repr(list(range(2000)))
    found = there(msg=list(range(1500)), taskName=list(range(1500)))
    assert (found["msg"], found["taskName"]) == (list(range(1500)), repr(list(range(1500))))
    pairs = dict.fromkeys(range(990), 1)
    assert there(msg=pairs)["msg"] == pairs


def test_empty_containers_stay_what_they_are_however_deep():
    value = [[[[[[[[[], (), {}, set()]]]]]]]]
    assert there(msg=value)["msg"] == value
    assert there(extra={})["extra"] == {}


def test_too_many_attributes_are_not_sent_at_all():
    assert there(extra={str(number): number for number in range(900)})["extra"]["899"] == 899
    assert there(extra={str(number): number for number in range(2100)})["extra"] == {}


def test_a_record_that_cannot_be_cut_enough_loses_what_is_in_containers():
    """A thousand texts of 4096 characters would be too much."""
    found = there(msg=["x" * 5000] * 900, extra={str(number): "y" * 5000 for number in range(900)})
    assert found["extra"] == {}
    assert found["msg"].startswith("['xxx")
    assert found["msg"].endswith("more characters)")
    assert found["levelname"] == "INFO"


def test_a_warning_has_no_attributes_whatever_is_cut():
    fields = log_records.loads(log_records.dumps({**CAUGHT, "text": "x" * (3 << 20), "line": "y" * (3 << 20)}))[1]
    assert fields.keys() == CAUGHT.keys()
