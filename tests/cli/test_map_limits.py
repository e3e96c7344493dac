"""`map` with --timeout, --retries and --max-memory, and functions that give no document or several."""

from __future__ import annotations

import json
import os

import pytest

NUMBERS = b"".join(b"%d\n" % number for number in range(200))


def noting(tmp_path, name, **more):
    path = tmp_path / name
    return path, json.dumps({"path": str(path), **more}).encode() + b"\n"


def calls_in(path):
    return path.stat().st_size


# ---- timeout -----------------------------------------------------------------------------------------------


def test_only_the_document_that_takes_too_long_fails(command, tmp_path):
    path, slow = noting(tmp_path, "calls", sleep=60)
    errors = tmp_path / "errors"
    done = command.map("count_and_hang", "--timeout", "0.5", "--errors", str(errors), input=NUMBERS + slow + NUMBERS)
    assert (done.returncode, done.stdout) == (0, NUMBERS + NUMBERS)
    (error,) = map(json.loads, errors.read_bytes().splitlines())
    assert (error["line"], error["how"], error["type"]) == (201, "timeout", "TaskTimeout")
    assert 1 <= calls_in(path) <= 2


def test_a_document_alone_that_takes_too_long_is_not_tried_again(command, tmp_path):
    path, slow = noting(tmp_path, "calls", sleep=60)
    done = command.map("count_and_hang", "--timeout", "0.3", "--traceback", input=slow)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"<stdin>:1: TaskTimeout: ")
    assert b"count_and_hang" in done.stderr, "where it was"
    assert calls_in(path) == 1


def test_the_time_is_that_of_one_document(command, tmp_path):
    """Each is well within its time, and what goes into one block is far beyond it."""
    lines = [noting(tmp_path, "calls", sleep=0.1)[1] for _ in range(60)]
    done = command.map("count_and_hang", "--timeout", "3", input=b"".join([*[b"1\n"] * 3000, *lines]))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 3060


# ---- retries -----------------------------------------------------------------------------------------------


def test_a_function_that_fails_is_tried_again(command, tmp_path):
    path, flaky = noting(tmp_path, "calls", fails=2)
    done = command.map("fail_at_first", "--retries", "2", input=flaky)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"3\n", b"")
    assert calls_in(path) == 3


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_it_is_tried_no_more_often_than_that(command, tmp_path, retries):
    path, flaky = noting(tmp_path, "calls", fails=9)
    done = command.map("fail_at_first", "--retries", str(retries), input=flaky)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == f"<stdin>:1: ValueError: attempt {retries + 1}\n".encode()
    assert calls_in(path) == retries + 1


def test_a_document_that_is_tried_again_keeps_its_place(command, tmp_path):
    lines, expected, paths = [], [], []
    for number in range(60):
        fails = 1 if number % 7 == 0 else 0
        path, line = noting(tmp_path, f"calls{number}", fails=fails)
        lines.append(line)
        expected.append(fails + 1)
        paths.append(path)
    done = command.map("fail_at_first", "--retries", "1", input=b"".join(lines))
    assert (done.returncode, done.stderr) == (0, b"")
    assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    assert [calls_in(path) for path in paths] == expected


def test_a_document_that_took_too_long_is_tried_again(command, tmp_path):
    path, slow = noting(tmp_path, "calls", sleep=60)
    done = command.map("count_and_hang", "--timeout", "0.3", "--retries", "1", "--on-error", "skip", input=slow)
    assert done.returncode == 0
    assert b"1 of 1 documents failed and were skipped; the first: <stdin>:1: TaskTimeout" in done.stderr
    assert calls_in(path) == 2


def test_a_line_that_is_not_json_is_not_tried_again(command):
    done = command.map("same", "--retries", "1000", "--on-error", "skip", input=b"1\nnope\n2\n")
    assert (done.returncode, done.stdout) == (0, b"1\n2\n")
    assert b"1 of 3 documents failed" in done.stderr


# ---- memory ------------------------------------------------------------------------------------------------


def test_a_document_that_takes_too_much_memory_fails_alone(command, tmp_path):
    errors = tmp_path / "errors"
    done = command.map("take_memory", "--max-memory", "200M", "--errors", str(errors), input=b"0\n300\n0\n20\n")
    assert (done.returncode, done.stdout) == (0, b"0\n0\n20\n")
    (error,) = map(json.loads, errors.read_bytes().splitlines())
    assert (error["line"], error["how"], error["type"]) == (2, "memory", "MemoryExceeded")


def test_a_worker_that_grows_is_replaced_and_costs_nothing(command, tmp_path):
    """All of it together is three times what one worker may have. None is killed: no document runs twice."""
    path, line = noting(tmp_path, "calls")
    done = command.map("leak", "--max-memory", "100M", "--workers", "1", input=line * 300)
    assert (done.returncode, done.stderr) == (0, b"")
    kept = [int(line) for line in done.stdout.split()]
    assert len(kept) == calls_in(path) == 300
    assert kept.count(1) > 1, "several workers began with nothing"


# ---- none, or several --------------------------------------------------------------------------------------


def test_one_document_to_many(command):
    done = command.map("count_up", input=b"2\n0\n3\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"0\n1\n0\n1\n2\n", b"")


def test_a_list_is_one_document(command):
    assert command.map("a_list", input=b"2\n").stdout == b"[0,1]\n"


def test_null_is_dropped_on_request(command):
    assert command.map("null", input=b"1\n2\n").stdout == b"null\nnull\n"
    done = command.map("null", "--drop-null", input=b"1\n2\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert command.map("nulls", "--drop-null", input=b"1\n").stdout == b"1\n"


# ---- bad values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--timeout", "0"], "argument --timeout: must be a number of seconds, more than 0, not '0'"),
        (["--timeout", "-1"], "argument --timeout: must be a number of seconds, more than 0, not '-1'"),
        (["--timeout", "nan"], "argument --timeout: must be a number of seconds, more than 0, not 'nan'"),
        (["--timeout", "1e999"], "argument --timeout: must be a number of seconds, more than 0, not '1e999'"),
        (["--timeout", "soon"], "argument --timeout: must be a number of seconds, more than 0, not 'soon'"),
        (["--retries", "-1"], "argument --retries: must be at least 0, not -1"),
        (["--retries", "1.5"], "argument --retries: must be a whole number, not '1.5'"),
        (["--retries", "1001"], "argument --retries: must be at most 1000, not 1001"),
        (["--max-memory", "500X"], "argument --max-memory: must be a size, such as 500M or 2G, not '500X'"),
        (["--max-memory=-1G"], "argument --max-memory: must be a size, such as 500M or 2G, not '-1G'"),
        (["--max-memory", ""], "argument --max-memory: must be a size, such as 500M or 2G, not ''"),
        (["--max-memory", "9999999999T"], "must be a size, such as 500M or 2G, not '9999999999T'"),
        (["--max-memory", "500"], "argument --max-memory: must be at least 32M, which a worker needs"),
        (["--cluster", " "], "argument --cluster: must be an address, such as tcp://host:8786, not ' '"),
        (["--drop-nul"], "did you mean --drop-null?"),
    ],
)
def test_a_bad_value_is_told_in_one_line(capfd, arguments, complaint):
    from pidfdpool.cli import main

    with pytest.raises(SystemExit) as exit_:
        main(["map", "json:loads", *arguments])
    assert exit_.value.code == 2
    out, err = capfd.readouterr()
    assert not out
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "size"),
    [("500M", 500 << 20), ("2G", 2 << 30), ("1.5g", 3 << 29), ("64MiB", 64 << 20), ("64mb", 64 << 20),
     ("100000K", 100_000 << 10), ("1T", 1 << 40), ("67108864", 64 << 20), ("67108864B", 64 << 20)],
)  # fmt: skip
def test_sizes(text, size):
    from pidfdpool.cli import usage

    assert usage.memory(text) == size


def test_all_options_together_beside_a_file_of_each_kind(command, tmp_path):
    out, errors = tmp_path / "out.jsonl.gz", tmp_path / "errors.jsonl.xz"
    done = command.map(
        "fail_on_three", "--timeout", "60", "--retries", "1", "--max-memory", "1G", "--output", str(out),
        "--errors", str(errors), "--drop-null", "--unordered", input=b"1\n3\nnull\n",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, b"")
    import gzip
    import lzma

    assert gzip.decompress(out.read_bytes()) == b"1\n"
    assert json.loads(lzma.decompress(errors.read_bytes()))["input"] == "3"
    assert sorted(os.listdir(tmp_path)) == ["errors.jsonl.xz", "out.jsonl.gz"]
