"""MODULE:FUNCTION: every way to get it wrong has an answer."""

from __future__ import annotations

import json
import pickle

import pytest

from pidfdpool.cli import target as targets
from pidfdpool.cli.target import Target
from pidfdpool.cli.usage import UsageError


def test_a_function_is_found():
    assert targets.parse("json:loads").load() is json.loads


def test_a_path_may_be_dotted():
    assert targets.parse("json.decoder:JSONDecoder.decode").load() is json.JSONDecoder.decode


def test_a_target_crosses_to_a_worker():
    target = targets.parse("json:loads")
    assert pickle.loads(pickle.dumps(target)) == target


def test_only_functions_named_loads_take_text():
    assert Target("orjson", "loads").takes_text
    assert Target("pkg.codecs", "Fast.loads").takes_text
    assert not Target("json", "dumps").takes_text
    assert not Target("loads", "parse").takes_text


@pytest.mark.parametrize("text", ["json", "json:", ":loads", ":", ""])
def test_what_does_not_look_like_a_function(text):
    with pytest.raises(UsageError, match="write MODULE:FUNCTION, such as json:loads"):
        targets.parse(text)


@pytest.mark.parametrize("text", ["a..b:f", ".a:f"])
def test_what_does_not_look_like_a_module(text):
    with pytest.raises(UsageError, match="is not the name of a module"):
        targets.parse(text)


@pytest.mark.parametrize(
    ("text", "likely"), [("jobs.py:f", "jobs:f"), ("./jobs.py:f", "jobs:f"), ("lib/jobs:f", "lib.jobs:f")]
)
def test_a_file_instead_of_a_module(text, likely):
    with pytest.raises(UsageError, match=f"is a file, not a module: did you mean {likely}"):
        targets.parse(text)


def test_a_missing_module():
    with pytest.raises(UsageError, match="there is no module 'no_such_module'"):
        Target("no_such_module", "f").load()


def test_a_missing_submodule():
    with pytest.raises(UsageError, match=r"there is no module 'json\.nothing'"):
        Target("json.nothing", "f").load()


def test_an_import_that_fails_inside_the_module():
    with pytest.raises(UsageError) as raised:
        Target("tests.cli.broken_module", "f").load()
    message = str(raised.value)
    assert "importing module 'tests.cli.broken_module' failed" in message
    assert "No module named 'a_module_that_does_not_exist'" in message
    assert "broken_module.py:3" in message


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("import sys\nsys.exit(5)", "SystemExit: 5"),
    ],
)
def test_a_module_that_fails(tmp_path, monkeypatch, source, complaint):
    (tmp_path / "fails_at_import.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError) as raised:
        Target("fails_at_import", "f").load()
    assert complaint in str(raised.value)
    assert f"fails_at_import.py:{source.count(chr(10)) + 1}" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_missing_attribute_with_likely_ones():
    with pytest.raises(UsageError, match="module 'json' has no attribute 'lods': did you mean loads"):
        Target("json", "lods").load()


def test_a_missing_attribute_of_a_class():
    with pytest.raises(
        UsageError, match="'JSONDecoder' of module 'json' has no attribute 'decod': did you mean decode"
    ):
        Target("json", "JSONDecoder.decod").load()


def test_something_that_cannot_be_called():
    with pytest.raises(UsageError, match="'decoder' of module 'json' is not a function but a module"):
        Target("json", "decoder").load()
    with pytest.raises(UsageError, match=r"'constant' of module 'tests\.cli\.jobs' is not a function but an int"):
        Target("tests.cli.jobs", "constant").load()
