"""`map` as a filter: what goes in, what comes out, and what it says."""

from __future__ import annotations

import gzip
import json
import os
import subprocess

import pytest

NUMBERS = b"".join(b"%d\n" % number for number in range(1, 6))


def test_documents_from_standard_input(command):
    done = command.map("increment", input=b'{"n": 1}\n\n{"n": 2}')
    assert (done.returncode, done.stdout, done.stderr) == (0, b'{"n":2}\n{"n":3}\n', b"")


def test_no_documents_at_all(command):
    done = command.map("same")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_json_loads_normalizes(command):
    done = command.run("map", "json:loads", input='{"a": [1,  2],\t"é": "\\u00e9"}\n'.encode())
    assert (done.returncode, done.stdout) == (0, '{"a":[1,2],"é":"é"}\n'.encode())


@pytest.mark.parametrize(
    ("mode", "expected"), [("auto", b'["dict",1]\n'), ("json", b'["dict",1]\n'), ("text", b'["str",8]\n')]
)
def test_what_the_function_is_given(command, mode, expected):
    assert command.map("length", "--input", mode, input=b'{"a": 1}\n').stdout == expected


def test_json_instead_of_text_on_request(command):
    done = command.run("map", "json:loads", "--input", "json", input=b'"[1]"\n')
    assert done.stdout == b"[1]\n"


def test_a_dotted_path(command):
    assert command.map("Box.wrap", input=b"1\n").stdout == b"[1]\n"


def test_many_documents_come_out_in_order(command):
    data = b"".join(b"%d\n" % number for number in range(100_000))
    done = command.map("same", input=data)
    assert done.returncode == 0
    assert done.stdout == data


def test_unordered_is_the_same_documents(command, tmp_path):
    go = tmp_path / "go"
    lines = [json.dumps({"wait_for": str(go)}).encode(), *(b'{"n":%d}' % number for number in range(50))]
    process = command.start("map", "jobs:wait_for", "--workers", "2", "--unordered")
    process.stdin.write(b"\n".join(lines))
    process.stdin.close()
    first = process.stdout.readline()
    assert b"wait_for" not in first
    go.touch()
    rest = process.stdout.read()
    assert process.wait() == 0
    got = (first + rest).splitlines()
    assert sorted(map(json.loads, got), key=str) == sorted(map(json.loads, lines), key=str)


def test_ordered_waits_for_the_first(command, tmp_path):
    """The second document is done, the first is not: nothing may be written."""
    go = tmp_path / "go"
    process = command.start("map", "jobs:wait_for", "--workers", "2")
    process.stdin.write(json.dumps({"wait_for": str(go)}).encode() + b'\n{"n":1}\n')
    process.stdin.close()
    go.touch()
    assert b"wait_for" in process.stdout.readline()
    assert process.stdout.read() == b'{"n":1}\n'
    assert process.wait() == 0


def test_files_and_standard_input_in_the_order_of_their_names(command, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b"1\n2")
    with gzip.open(tmp_path / "b.jsonl.gz", "wb") as file:
        file.write(b"\xef\xbb\xbf3\r\n4\r\n")
    done = command.map("same", str(tmp_path / "b.jsonl.gz"), "-", str(tmp_path / "a.jsonl"), input=b"9\n")
    assert (done.returncode, done.stdout) == (0, b"3\n4\n9\n1\n2\n")


def test_standard_input_by_its_other_name(command):
    assert command.map("same", "/dev/stdin", input=b"1\n").stdout == b"1\n"


@pytest.mark.many_times
def test_a_very_long_line(command):
    document = {"pad": "x" * 50_000_000, "end": True}
    done = command.map("same", input=b"1\n" + json.dumps(document).encode() + b"\n2\n")
    assert done.returncode == 0
    first, long, last = done.stdout.splitlines()
    assert (first, last) == (b"1", b"2")
    assert json.loads(long) == document


def test_what_the_function_prints_goes_to_standard_error(command):
    done = command.map("chatter", input=b"1\n")
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert sorted(done.stderr.splitlines()) == [b"printed by the function", b"written by the function"]


def test_what_its_module_prints_goes_to_standard_error(command, tmp_path):
    (tmp_path / "chatty.py").write_text("print('imported')\ndef f(x): return x\n")
    done = command.run("map", "chatty:f", input=b"1\n", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert b"imported" in done.stderr


# ---- documents that fail -----------------------------------------------------------------------------------


def test_fail_writes_what_comes_before_and_names_the_line(command):
    done = command.map("fail_on_three", input=b"1\n\n2\n3\n4\n")
    assert done.returncode == 1
    assert done.stdout == b"1\n2\n"
    assert done.stderr == b"<stdin>:4: ValueError: three is not allowed\n"


def test_fail_in_the_middle_of_a_lot(command, tmp_path):
    file = tmp_path / "lot.jsonl"
    before = b"".join(b"[%d]\n" % number for number in range(20_000))
    file.write_bytes(before + b"3\n" + before)
    done = command.map("fail_on_three", str(file))
    assert (done.returncode, done.stdout) == (1, before)
    assert done.stderr == f"{file}:20001: ValueError: three is not allowed\n".encode()


def test_fail_does_not_wait_for_more_input(command):
    process = command.start("map", "jobs:fail_on_three", "--workers", "1")
    process.stdin.write(b"1\n3\n")
    process.stdin.flush()
    assert process.wait() == 1
    assert process.stdout.read() == b"1\n"


def test_skip_leaves_it_out_and_sums_up(command):
    done = command.map("fail_on_three", "--on-error", "skip", input=NUMBERS)
    assert (done.returncode, done.stdout) == (0, b"1\n2\n4\n5\n")
    assert done.stderr == (
        b"1 of 5 documents failed and were skipped; the first: <stdin>:3: ValueError: three is not allowed\n"
    )


def test_record_puts_an_error_in_its_place(command, tmp_path):
    file = tmp_path / "in.jsonl"
    file.write_bytes(NUMBERS)
    done = command.map("fail_on_three", "--on-error", "record", str(file))
    lines = list(map(json.loads, done.stdout.splitlines()))
    assert done.returncode == 0
    assert lines[:2] + lines[3:] == [1, 2, 4, 5]
    assert lines[2] == {
        "error": {"type": "ValueError", "message": "three is not allowed", "file": str(file), "line": 3},
        "input": "3",
    }
    assert b"1 of 5 documents failed and were recorded" in done.stderr


@pytest.mark.parametrize("function", ["json:loads", "jobs:same"])
def test_a_line_that_does_not_parse(command, tmp_path, function):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_bytes(b"1\n2\n")
    bad.write_bytes(b'3\n\n{"a": nope}\n4\n')
    done = command.run("map", function, str(good), str(bad))
    assert (done.returncode, done.stdout) == (1, b"1\n2\n3\n")
    assert done.stderr == f"{bad}:3: JSONDecodeError: Expecting value (column 7)\n".encode()


def test_a_traceback_on_request(command):
    done = command.map("fail_on_three", "--traceback", input=b"3\n")
    assert done.returncode == 1
    assert b"<stdin>:1: ValueError: three is not allowed\nTraceback (most recent call last):\n" in done.stderr
    assert b"jobs.py" in done.stderr


def test_a_function_that_calls_exit(command):
    done = command.map("exit_on_three", input=NUMBERS)
    assert (done.returncode, done.stdout) == (1, b"1\n2\n")
    assert done.stderr == b"<stdin>:3: SystemExit: three is the end\n"


def test_input_that_breaks_off(command, tmp_path):
    file = tmp_path / "cut.gz"
    file.write_bytes(gzip.compress(b"1\n" * 100_000)[:-20])
    done = command.map("same", str(file))
    assert done.returncode == 1
    assert done.stdout == b"1\n" * (len(done.stdout) // 2)
    assert b"cut.gz: cannot be read beyond line" in done.stderr
    assert b"Traceback" not in done.stderr


# ---- mistakes, told at once --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["jobs"], "'jobs' does not name a function"),
        (["no_such_module:f"], "there is no module 'no_such_module'"),
        (["broken_module:f"], "importing module 'broken_module' failed: ModuleNotFoundError"),
        (["jobs:incremnt"], "module 'jobs' has no attribute 'incremnt': did you mean increment?"),
        (["jobs:constant"], "'constant' of module 'jobs' is not a function but an int"),
        (["jobs:same", "jobs.py", "missing.jsonl"], "missing.jsonl: No such file or directory"),
        (["jobs:same", "."], ".: is a directory"),
    ],
)
def test_a_mistake_is_told_before_anything_is_read(command, arguments, complaint):
    """Standard input stays open and silent: whoever read it would hang."""
    process = command.start("map", *arguments)
    assert process.wait() == 2
    message = process.stderr.read().decode()
    assert complaint in message
    assert message.startswith("python -m pidfdpool map: ")
    assert message.count("\n") == 1
    assert process.stdout.read() == b""


def closing(*fds):
    """Start a command with these descriptors closed."""
    return ["sh", "-c", 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in fds), "sh"]


def test_standard_input_is_closed(command):
    line = closing(0) + command.line("map", "jobs:same")
    done = subprocess.run(line, capture_output=True, check=False, **command.options({}))
    assert done.returncode == 2
    assert b"standard input is closed" in done.stderr


def test_standard_input_is_closed_but_not_needed(command, tmp_path):
    (tmp_path / "a").write_bytes(b"1\n")
    line = closing(0) + command.line("map", "jobs:same", str(tmp_path / "a"))
    done = subprocess.run(line, capture_output=True, check=False, **command.options({}))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


def test_standard_output_is_closed(command):
    line = closing(1) + command.line("map", "jobs:same")
    done = subprocess.run(line, input=b"1\n", capture_output=True, check=False, **command.options({}))
    assert done.returncode == 2
    assert b"standard output is closed" in done.stderr


def test_standard_error_is_closed(command):
    line = closing(2) + command.line("map", "jobs:chatter")
    done = subprocess.run(line, input=b"1\n", capture_output=True, check=False, **command.options({}))
    assert (done.returncode, done.stdout) == (0, b"1\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_the_disk_is_full(command):
    with open("/dev/full", "wb") as full:
        process = command.start("map", "jobs:same", stdout=full)
        process.stdin.write(b"1\n")
        process.stdin.close()
        assert process.wait() == 1
    assert process.stderr.read() == b"cannot write the output: No space left on device\n"
