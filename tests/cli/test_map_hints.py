"""Input that is JSON, but not one document per line: what is wrong, and what to do."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess

import pytest

from pidfdpool.cli import hints

DOCUMENTS = [{"n": number} for number in range(3)]


def write(tmp_path, text):
    file = tmp_path / "a file.json"
    file.write_text(text)
    return file


@pytest.mark.parametrize("indent", [None, 2], ids=["one line", "several lines"])
@pytest.mark.parametrize("option", [[], ["--on-error", "skip"]], ids=["fail", "skip"])
def test_an_array(command, tmp_path, indent, option):
    file = write(tmp_path, json.dumps(DOCUMENTS, indent=indent))
    done = command.map("increment", str(file), *option)
    assert done.returncode == (0 if option else 1)
    assert done.stdout == b""
    last = done.stderr.decode().splitlines()[-2:]
    assert last[0].startswith(f"hint: {file} seems to be one JSON array; map wants one document per line.")
    assert f"jq -c '.[]' '{file}' > lines.jsonl" in last[0]
    assert "without jq" in last[1]


def test_an_array_that_the_function_takes(command):
    """It is one document then, and probably not meant so."""
    done = command.run("map", "json:loads", input=json.dumps(DOCUMENTS).encode())
    assert (done.returncode, done.stdout) == (0, b'[{"n":0},{"n":1},{"n":2}]\n')
    assert done.stderr.startswith(b"hint: <stdin> seems to be one JSON array; map wants one document per line.")
    assert b"... | jq -c '.[]' | python -m pidfdpool map ..." in done.stderr


@pytest.mark.parametrize("data", [b"[1, 2]\n", b'[{"n": 1}]\n[{"n": 2}]\n', b"{}\n", b"\n"])
def test_documents_that_are_arrays_are_as_good_as_others(command, data):
    done = command.map("same", input=data)
    assert (done.returncode, done.stderr) == (0, b"")


def test_documents_on_several_lines(command, tmp_path):
    file = write(tmp_path, json.dumps(DOCUMENTS[0], indent=2))
    done = command.map("increment", str(file))
    assert done.returncode == 1
    first, hint = done.stderr.decode().splitlines()
    assert first == f"{file}:1: JSONDecodeError: Expecting property name enclosed in double quotes (column 2)"
    assert f"jq -c . '{file}' > lines.jsonl" in hint


def test_other_failures_get_no_hint(command):
    done = command.map("fail_on_three", "--on-error", "skip", input=b"1\n3\n[\n")
    assert b"hint" not in done.stderr


def test_what_the_hint_says_converts_it(tmp_path):
    file = tmp_path / "it's.json.gz"
    file.write_bytes(gzip.compress(json.dumps(DOCUMENTS).encode()))
    with_jq, without = hints.hint(str(file), "array").splitlines()
    expected = b'{"n": 0}\n{"n": 1}\n{"n": 2}\n'
    command = without.partition("without jq: ")[2]
    assert subprocess.run(command, shell=True, capture_output=True, check=True).stdout == expected
    if shutil.which("jq"):
        subprocess.run(with_jq.partition("To convert it: ")[2], shell=True, check=True, cwd=tmp_path)
        assert (tmp_path / "lines.jsonl").read_bytes() == expected.replace(b" ", b"")
