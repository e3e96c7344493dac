"""`map --output` and `--errors`: files that are complete or not there, and what is no regular file."""

from __future__ import annotations

import bz2
import errno
import gzip
import json
import lzma
import os
import signal
import stat
import subprocess
import threading

import pytest

from pidfdpool.cli import outputs
from pidfdpool.cli.streams import Output
from pidfdpool.cli.usage import UsageError

NUMBERS = b"1\n2\n3\n4\n5\n"


def records(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# ---- complete, or not at all -------------------------------------------------------------------------------


def test_the_output_goes_to_the_file(command, tmp_path):
    file = tmp_path / "out.jsonl"
    done = command.map("increment", "--output", str(file), input=b'{"n": 1}\n')
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert file.read_bytes() == b'{"n":2}\n'
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_a_file_without_documents_is_there_and_empty(command, tmp_path):
    file = tmp_path / "out.jsonl"
    assert command.map("same", "--output", str(file)).returncode == 0
    assert file.read_bytes() == b""


def test_a_run_that_fails_leaves_what_was_there(command, tmp_path):
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"before\n")
    done = command.map("fail_on_three", "--output", str(file), input=NUMBERS)
    assert done.returncode == 1
    assert file.read_bytes() == b"before\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_what_was_there(command, tmp_path, number):
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"before\n")
    process = command.start("map", "jobs:hang", "--workers", "1", "--output", str(file))
    process.stdin.write(b"1\n")
    process.stdin.flush()
    assert process.stderr.readline() == b"hanging\n"
    process.send_signal(number)
    assert process.wait() == -number
    assert file.read_bytes() == b"before\n"
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_nobody_sees_a_part_of_it(command, tmp_path):
    file = tmp_path / "out.jsonl"
    file.write_bytes(b"before\n")
    process = command.start("map", "jobs:same", "--workers", "1", "--output", str(file), "--errors", "-")
    process.stdin.write(b"1\nx\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["line"] == 2
    assert file.read_bytes() == b"before\n"
    process.stdin.close()
    assert process.wait() == 0
    assert file.read_bytes() == b"1\n"


def test_the_output_may_be_an_input(command, tmp_path):
    file = tmp_path / "both.jsonl"
    file.write_bytes(b'{"n": 1}\n' * 5000)
    file.chmod(0o640)
    done = command.map("increment", str(file), "--output", str(file))
    assert done.returncode == 0
    assert file.read_bytes() == b'{"n":2}\n' * 5000
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_link_stays_a_link(command, tmp_path):
    (tmp_path / "target").write_bytes(b"before\n")
    (tmp_path / "link").symlink_to("target")
    assert command.map("same", "--output", str(tmp_path / "link"), input=b"1\n").returncode == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"1\n"


# ---- what is written to as it is ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_by_its_names(command, name):
    done = command.map("chatter", "--output", name, input=b"1\n")
    assert (done.returncode, done.stdout) == (0, b"1\n")
    assert sorted(done.stderr.splitlines()) == [b"printed by the function", b"written by the function"]


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2"])
def test_errors_to_standard_error(command, name, tmp_path):
    """It is a file here that has something in it: to open it anew would begin at its start."""
    with open(tmp_path / "log", "ab+") as log:
        log.write(b"before\n")
        log.flush()
        done = subprocess.run(
            command.line("map", "jobs:same", "--errors", name),
            input=b"x\n",
            stdout=subprocess.PIPE,
            stderr=log,
            check=False,
            **command.options({}),
        )
    assert (done.returncode, done.stdout) == (0, b"")
    before, error, summary = (tmp_path / "log").read_bytes().splitlines()
    assert before == b"before"
    assert json.loads(error)["line"] == 1
    assert b"1 of 1 documents failed" in summary


@pytest.fixture
def to_pipe(command, tmp_path):
    """Give a run that writes to a named pipe, its first line being written, and the reader of the pipe."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = command.start("map", "jobs:same", "--workers", "1", "--output", str(pipe))
    with open(pipe, "rb") as reader:
        process.stdin.write(b"1\n")
        process.stdin.flush()
        assert reader.readline() == b"1\n"
        yield process, reader
    assert pipe.is_fifo()


def test_a_named_pipe_is_written_at_once_and_stays_one(to_pipe):
    process, reader = to_pipe
    process.stdin.close()
    assert reader.read() == b""
    assert process.wait() == 0


def test_a_named_pipe_whose_reader_goes_away_ends_the_run_quietly(to_pipe):
    process, reader = to_pipe
    reader.close()
    process.stdin.write(b"2\n")
    process.stdin.flush()
    assert process.wait() == -signal.SIGPIPE
    assert process.stderr.read() == b""


def test_both_may_go_to_the_same_device(command):
    done = command.map("same", "--output", "/dev/null", "--errors", "/dev/null", input=b"1\nx\n")
    assert (done.returncode, done.stdout) == (0, b"")


def test_standard_output_is_closed_but_not_needed(command, tmp_path):
    line = [
        "sh",
        "-c",
        'exec "$@" >&-',
        "sh",
        *command.line("map", "jobs:chatter", "--output", str(tmp_path / "out")),
    ]
    done = subprocess.run(line, input=b"1\n", capture_output=True, check=False, **command.options({}))
    assert done.returncode == 0
    assert (tmp_path / "out").read_bytes() == b"1\n"
    assert sorted(done.stderr.splitlines()) == [b"printed by the function", b"written by the function"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_that_is_full_is_named(command):
    done = command.map("same", "--output", "/dev/full", input=b"1\n")
    assert (done.returncode, done.stderr) == (1, b"cannot write /dev/full: No space left on device\n")


# ---- errors ------------------------------------------------------------------------------------------------


def test_errors_are_listed_and_the_job_goes_on(command, tmp_path):
    (tmp_path / "a.jsonl").write_bytes(NUMBERS)
    (tmp_path / "b.jsonl").write_bytes(b"6\nnope\n")
    a, b, errors = (str(tmp_path / name) for name in ("a.jsonl", "b.jsonl", "errors.jsonl"))
    done = command.map("die_on_three", a, b, "--errors", errors)
    assert (done.returncode, done.stdout) == (0, b"1\n2\n4\n5\n6\n")
    crash, unreadable = records(tmp_path / "errors.jsonl")
    assert (crash["file"], crash["line"], crash["how"], crash["type"]) == (a, 3, "crash", "WorkerCrashed")
    assert "SIGKILL" in crash["message"]
    assert crash["input"] == "3"
    assert (unreadable["file"], unreadable["line"], unreadable["how"]) == (b, 2, "input")
    assert unreadable["type"] == "JSONDecodeError"
    assert f"2 of 7 documents failed and were skipped and listed in {errors}; the first: {a}:3: " in (
        done.stderr.decode()
    )


def test_errors_are_listed_and_recorded(command, tmp_path):
    errors = tmp_path / "errors.jsonl"
    done = command.map("fail_on_three", "--errors", str(errors), "--on-error", "record", input=NUMBERS)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[2])["error"]["line"] == 3
    (error,) = records(errors)
    assert (error["how"], error["type"], error["message"]) == ("function", "ValueError", "three is not allowed")


def test_a_list_of_no_errors_is_empty(command, tmp_path):
    errors = tmp_path / "errors.jsonl"
    errors.write_bytes(b"of another run\n")
    done = command.map("same", "--errors", str(errors), input=NUMBERS)
    assert (done.returncode, done.stderr) == (0, b"")
    assert errors.read_bytes() == b""


# ---- compressed --------------------------------------------------------------------------------------------


@pytest.mark.costly_table
@pytest.mark.parametrize(
    ("suffix", "compress", "decompress"),
    [
        (".gz", gzip.compress, gzip.decompress),
        (".bz2", bz2.compress, bz2.decompress),
        (".xz", lzma.compress, lzma.decompress),
    ],
)
@pytest.mark.parametrize("data", [b"", b"".join(b"%d\n" % number for number in range(50_000))], ids=["none", "many"])
def test_compressed_by_suffix(command, tmp_path, suffix, compress, decompress, data):
    source, output = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    source.write_bytes(compress(data[:1000]) + compress(data[1000:]))
    done = command.map("same", str(source), "--output", str(output))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert decompress(output.read_bytes()) == data


# ---- mistakes, told before anything is read ----------------------------------------------------------------


def refused(command, *arguments, **options):
    """Run it with standard input open and silent: whoever read it would hang."""
    process = command.start("map", "jobs:same", *arguments, **options)
    assert process.wait() == 2
    assert process.stdout.read() == b""
    message = process.stderr.read().decode()
    assert message.startswith("python -m pidfdpool map: ")
    assert message.count("\n") == 1
    return message


@pytest.mark.parametrize("option", ["--output", "--errors"])
@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("no/such/folder/out", "No such file or directory"),
        (".", "is a directory, not a file"),
        ("", "No such file or directory"),
        ("conftest.py/out", "Not a directory"),
        ("/dev/fd/987", "Bad file descriptor"),
    ],
)
def test_where_nothing_can_be_written(command, option, name, complaint):
    assert f"argument {option}: {name!r}: {complaint}" in refused(command, option, name)


def test_an_output_that_may_not_be_written(command, tmp_path, monkeypatch):
    file = tmp_path / "out"
    file.touch()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(UsageError, match=r"argument --output: '.*out': Permission denied"):
        with outputs.opened("--output", str(file), Output(1), []):
            pass


@pytest.mark.parametrize("names", [("out", "out"), ("./out", "out"), ("link", "out"), ("-", "/dev/stdout")])
def test_both_in_one_file(command, tmp_path, names):
    (tmp_path / "out").touch()
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "jobs.py").write_text("def same(document): return document\n")
    message = refused(command, "--output", names[0], "--errors", names[1], cwd=tmp_path)
    assert f"argument --errors: {names[1]!r} is where --output writes, too" in message


def test_errors_that_end_the_run_are_not_listed(command):
    message = refused(command, "--errors", "errors.jsonl", "--on-error", "fail")
    assert "argument --errors: not with --on-error fail" in message


# ---- file systems that are not as usual --------------------------------------------------------------------


def written(path, data, inputs=()):
    with outputs.opened("--output", str(path), Output(1), inputs) as output:
        output.write(data)
        output.finish()


def opening(refuse):
    """Return an os.open that fails as it says."""

    def open_(path, flags, *more, **options):
        number = refuse(flags)
        if number:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *more, **options)

    real = os.open
    return open_


def test_without_files_that_have_no_name(tmp_path, monkeypatch):
    def refuse(flags):
        return errno.EOPNOTSUPP if flags & os.O_TMPFILE == os.O_TMPFILE else 0

    monkeypatch.setattr(os, "open", opening(refuse))
    file = tmp_path / "out"
    written(file, b"1\n")
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"1\n", ["out"])
    with outputs.opened("--output", str(file), Output(1), []) as output:
        output.write(b"2\n")
        assert len(os.listdir(tmp_path)) == 2
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"1\n", ["out"]), "it was not finished"


def test_a_folder_that_takes_no_new_file(tmp_path, monkeypatch):
    def refuse(flags):
        return errno.EACCES if flags & os.O_TMPFILE == os.O_TMPFILE or flags & os.O_CREAT else 0

    file = tmp_path / "out"
    file.write_bytes(b"before, and longer\n")
    monkeypatch.setattr(os, "open", opening(refuse))
    with pytest.raises(UsageError, match="it is an input, too"):
        written(file, b"1\n", [str(file)])
    written(file, b"1\n")
    assert file.read_bytes() == b"1\n"


def test_a_file_that_is_mounted_by_itself(tmp_path, monkeypatch):
    def busy(*_):
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    file = tmp_path / "out"
    file.write_bytes(b"before, and longer\n")
    monkeypatch.setattr(os, "replace", busy)
    written(file, b"1\n")
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"1\n", ["out"])


def test_a_file_without_a_name_that_cannot_get_one(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "out"
    file.write_bytes(b"before, and longer\n")
    file.chmod(0o600)
    written(file, b"1\n")
    assert (file.read_bytes(), os.listdir(tmp_path)) == (b"1\n", ["out"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_disk_that_is_full_at_the_end(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(outputs.WriteError, match="cannot write .*out: No space left on device"):
        written(tmp_path / "out", b"1\n")
    assert os.listdir(tmp_path) == []


def test_a_pipe_that_takes_its_time(tmp_path):
    """What is opened as it is, is opened when it is asked for; its reader may come later."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    written(pipe, b"1\n")
    reader.join()
    assert read == [b"1\n"]
    assert pipe.is_fifo()
