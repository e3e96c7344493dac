"""What is said of a script's globals that cannot travel, or should not, and what a worker has in their place."""

from __future__ import annotations

import enum
import pickle
import sys
import threading
import types
import warnings

import pytest

from pidfdpool import GlobalNotAvailable, LargeGlobalWarning
from pidfdpool.serialization import namespaces, omitted_globals, payload, scripts
from pidfdpool.serialization.placeholder import REMEDIES

LOCK = ("__main__", "LOCK")


@pytest.mark.parametrize(
    ("key", "user", "obstacle", "message"),
    [
        (
            LOCK,
            "work",
            "it has no file",
            "the script's global 'LOCK' (_thread.lock), used by 'work', cannot be sent to a worker: it refuses. A "
            f"worker cannot make it by running the script again either: it has no file. {REMEDIES}",
        ),
        (
            LOCK,
            None,
            None,
            f"the script's global 'LOCK' (_thread.lock) cannot be sent to a worker: it refuses. {REMEDIES}",
        ),
        (
            ("tools", "LOCK"),
            "work",
            None,
            "the global 'LOCK' of module 'tools' (_thread.lock), used by 'work', cannot be sent to a worker: it "
            f"refuses. {REMEDIES}",
        ),
    ],
    ids=["of a script that cannot be run again", "used by the call itself", "of another module"],
)
def test_the_message_names_the_global_its_user_the_reason_and_what_to_try(key, user, obstacle, message):
    kind = omitted_globals.describe_type(threading.Lock())
    assert omitted_globals.Omission(key, kind, user, "it refuses").message(obstacle) == message


class Kind(enum.Enum):
    ONE = 1


def test_a_type_is_named_with_its_module_and_a_class_with_its_metaclass():
    describe = omitted_globals.describe_type
    assert (describe(1), describe(int), describe(Kind)) == ("int", "a class of type type", "a class of type EnumType")
    assert describe(Kind.ONE) == f"{__name__}.Kind"


def test_a_reason_has_no_full_stop_and_its_type_unless_pickle_raises_that_anyway():
    reason = omitted_globals.reason_of
    assert reason(TypeError("cannot pickle it. ")) == "cannot pickle it"
    assert reason(ValueError("no.")) == "ValueError: no"


# ---- in the worker -------------------------------------------------------------------------------------------


@pytest.fixture
def names(monkeypatch):
    """Return the globals of the script in a worker."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.setattr(namespaces, "globals_by_module", {})
    return namespaces.module_globals("__main__")


def omitted():
    return pickle.loads(pickle.dumps(omitted_globals.OmittedValue(LOCK, "it could not travel")))


def test_an_absent_global_is_a_placeholder_that_raises_the_message_when_it_is_used(names):
    value = omitted()
    with pytest.raises(GlobalNotAvailable, match="it could not travel"):
        value.acquire()


def test_what_the_script_has_made_here_takes_its_place(names):
    names["LOCK"] = lock = threading.Lock()
    assert omitted() is lock


def test_a_placeholder_that_is_there_already_is_not_what_the_script_has_made(names):
    names["LOCK"] = omitted()
    value = omitted()
    assert value is not names["LOCK"]


def test_the_failure_of_the_script_is_told(names):
    vars(sys.modules["__main__"])[scripts.FAILURE] = "ValueError: no (script.py, line 3)"
    with pytest.raises(GlobalNotAvailable, match=r"run again to make it, but it failed: ValueError: no \(script"):
        omitted().acquire()


# ---- large ones ----------------------------------------------------------------------------------------------


def test_a_large_global_is_warned_of_once_and_each_by_itself(monkeypatch):
    monkeypatch.setattr(omitted_globals, "_warned", set())
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for name in ("TABLE", "TABLE", "OTHER"):
            omitted_globals.warn_about_large(("__main__", name), 2_500_000, "work")
    assert [each.category for each in seen] == [LargeGlobalWarning] * 2
    assert [each.filename for each in seen] == [__file__] * 2
    for part in ("'TABLE'", "used by 'work'", "2.5 MB", REMEDIES):
        assert part in str(seen[0].message)
    assert "'OTHER'" in str(seen[1].message)


def test_a_large_global_of_the_call_itself_has_no_user(monkeypatch):
    monkeypatch.setattr(omitted_globals, "_warned", set())
    with pytest.warns(LargeGlobalWarning) as seen:
        omitted_globals.warn_about_large(("__main__", "TABLE"), 1 << 20, None)
    assert str(seen[0].message) == f"the script's global 'TABLE' is sent again with each call: 1.0 MB. {REMEDIES}"


def test_a_function_is_not_called_its_own_user(main, run, monkeypatch):
    monkeypatch.setattr(omitted_globals, "_warned", set())
    run("def again(data=bytes(1 << 21)):\n    return again")
    with pytest.warns(LargeGlobalWarning, match="global 'again' is sent again with each call"):
        payload.dumps((main.again, (), {}))


def test_a_type_of_the_script_itself_is_named_without_its_module():
    kind = type("Own", (), {"__module__": "__main__"})
    assert omitted_globals.describe_type(kind()) == "Own"
    assert omitted_globals.describe_type(threading.Lock()) == "_thread.lock"


def test_a_reason_without_a_text_is_the_type():
    assert omitted_globals.reason_of(ValueError()) == "ValueError"
    assert omitted_globals.reason_of(TypeError("")) == "TypeError"


SHAPES = {
    "bytes": bytes,
    "a list of one": lambda size: ["x" * size],
    "a dictionary of few": lambda size: {at: b"x" * (size // 10) + bytes([at]) for at in range(10)},
    "a list of many": lambda size: [b"x" * (size // 80) + bytes([at]) for at in range(80)],
    "a list with a class": lambda size: [object, "x" * size],
}


@pytest.mark.parametrize("make", SHAPES.values(), ids=SHAPES)
def test_a_global_is_large_from_one_megabyte_on(main, run, monkeypatch, make):
    monkeypatch.setattr(omitted_globals, "_warned", set())
    run("def look():\n    return table")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main.table = make(1_000_000)
        payload.dumps((main.look, (), {}))
    main.table = make(1_100_000)
    with pytest.warns(LargeGlobalWarning, match=r"'table', used by 'look', is sent again with each call: 1\.1 MB"):
        payload.dumps((main.look, (), {}))
