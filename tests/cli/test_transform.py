"""What a worker makes of a block, tested without any worker."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pidfdpool.cli import transform
from pidfdpool.cli.pacing import MAX_LINES, TARGET_SECONDS, Pace
from pidfdpool.cli.target import Target
from pidfdpool.cli.transform import Block, Failure, Job


def job(function="same", *, on_error="fail", text=False, traceback=False, **more):
    return Job(Target("tests.cli.jobs", function), text, on_error, traceback, **more)


def run(data, function="same", line=1, **options):
    return transform.run(job(function, **options), Block("in.jsonl", line, data, len(data)))


def test_documents_in_documents_out():
    outcome = run(b'{"n": 1}\n{"n": 2}\n', "increment")
    assert outcome.output == b'{"n":2}\n{"n":3}\n'
    assert (outcome.documents, outcome.failed, outcome.failure) == (2, 0, None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(json_values))
def test_every_document_survives(documents):
    data = b"".join(json.dumps(document).encode() + b"\n" for document in documents)
    outcome = run(data)
    lines = outcome.output.split(b"\n")
    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == documents


@given(st.binary(), st.sampled_from(["fail", "skip", "record"]), st.booleans())
def test_no_input_makes_it_raise(data, on_error, text):
    outcome = run(data, on_error=on_error, text=text)
    assert outcome.failed <= outcome.documents
    assert (outcome.failure is None) == (outcome.failed == 0)
    for line in outcome.output.splitlines():
        json.loads(line)
    pickle.loads(pickle.dumps(outcome))


def test_blank_lines_are_passed_over_but_counted():
    outcome = run(b"1\n\n \t \r\nx\n", on_error="skip")
    assert outcome.documents == 2
    assert outcome.failure.line == 4


def test_a_byte_order_mark_is_tolerated_at_the_start_of_a_file_only():
    assert run(b"\xef\xbb\xbf1\n").output == b"1\n"
    assert run(b"\xef\xbb\xbf\n2").output == b"2\n"
    assert run(b"\xef\xbb\xbf1\n", line=2).failed == 1


def test_dos_line_ends():
    assert run(b'{"a": 1}\r\n"b"\r\n').output == b'{"a":1}\n"b"\n'
    assert run(b"ab\r\n", "length", text=True).output == b'["str",2]\n'


def test_text_is_the_line_without_its_end():
    assert run('{"é": 1} \n'.encode(), "length", text=True).output == b'["str",9]\n'


def test_text_that_looks_like_several_lines_to_python_is_one():
    assert run('"\u2028\x0b\x0c"\n'.encode(), "length", text=True).output == b'["str",5]\n'


def test_output_is_utf8_and_half_a_surrogate_pair_is_escaped():
    assert run(b'"\\u00e9"').output == '"é"\n'.encode()
    assert run(b'"\\ud83d\\ude00"').output == '"😀"\n'.encode()
    assert run(b'["\\ud83d", "\xc3\xa9"]').output == b'["\\ud83d","\\u00e9"]\n'


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "[Infinity]"])
def test_what_python_takes_for_json_and_the_standard_does_not(text):
    failure = run(text.encode()).failure
    assert failure.kind == "ValueError"
    assert "is not JSON" in failure.message


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("infinite", "ValueError", "not JSON compliant"),
        ("not_json", "TypeError", "set is not JSON serializable"),
        ("increment", "TypeError", ""),
    ],
)
def test_a_result_that_cannot_be_had(function, kind, message):
    failure = run(b"1\n", function).failure
    assert failure.kind == kind
    assert message in failure.message


def test_a_line_that_does_not_parse_is_named():
    outcome = run(b'{"a": 1}\n{"a": \n', line=41)
    assert str(outcome.failure) == "in.jsonl:42: JSONDecodeError: Expecting value (column 7)"


def test_invalid_utf8_is_an_error_of_its_line():
    outcome = run(b'"\xff"\n2\n', on_error="skip")
    assert outcome.output == b"2\n"
    assert (outcome.failure.line, outcome.failure.kind) == (1, "UnicodeDecodeError")


def test_fail_ends_before_the_first_failure():
    outcome = run(b"1\n2\n3\n4\n3\n", "fail_on_three")
    assert outcome.output == b"1\n2\n"
    assert (outcome.documents, outcome.failed) == (3, 1)
    assert str(outcome.failure) == "in.jsonl:3: ValueError: three is not allowed"


def test_skip_leaves_them_out_and_tells_of_the_first():
    outcome = run(b"1\n3\n4\n3\n", "fail_on_three", on_error="skip")
    assert outcome.output == b"1\n4\n"
    assert (outcome.documents, outcome.failed, outcome.failure.line) == (4, 2, 2)


def test_record_puts_an_error_in_their_place():
    outcome = run(b"1\n3 \r\n4\n", "fail_on_three", on_error="record")
    first, error, last = map(json.loads, outcome.output.splitlines())
    assert (first, last) == (1, 4)
    assert error == {
        "error": {"type": "ValueError", "message": "three is not allowed", "file": "in.jsonl", "line": 2},
        "input": "3 ",
    }


def test_record_of_something_that_is_no_text():
    outcome = run(b'"\xff"\n', on_error="record")
    assert json.loads(outcome.output)["input"] == '"\ufffd"'


def test_a_function_that_exits_is_a_failure():
    assert str(run(b"3\n", "exit_on_three").failure) == "in.jsonl:1: SystemExit: three is the end"


def test_the_traceback_shows_the_function_and_not_this_program():
    failure = run(b"3\n", "fail_on_three", traceback=True).failure
    assert "in fail_on_three" in failure.traceback
    assert "transform.py" not in failure.traceback
    assert str(failure).startswith("in.jsonl:1: ValueError: three is not allowed\nTraceback (most recent")


def test_a_failure_without_a_message():
    assert str(Failure("f", 2, "KeyError", "")) == "f:2: KeyError"


def test_an_error_that_cannot_be_told(monkeypatch):
    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    def fail(document):
        raise MuteError

    monkeypatch.setattr("tests.cli.jobs.mute", fail, raising=False)
    assert "the error has no message: str() raised RuntimeError" in run(b"1\n", "mute").failure.message


def test_splitting_keeps_each_document_and_its_line_number():
    data = b"\xef\xbb\xbf1\n\n2\r\n3"
    parts = transform.split(Block("f", 1, data, len(data)))
    assert [(part.line, part.data) for part in parts] == [(1, b"1"), (3, b"2\r"), (4, b"3")]
    assert [transform.run(job(), part).output for part in parts] == [b"1\n", b"2\n", b"3\n"]


@pytest.mark.parametrize(("on_error", "lines"), [("fail", 0), ("skip", 0), ("record", 1)])
def test_a_document_whose_worker_died(on_error, lines):
    given, block = job(on_error=on_error), Block("f", 7, b"{}", 0)
    failure = transform.death_of(given, block, "crash", Crash("killed by SIGKILL"))
    outcome = transform.failed_outcome(given, block, failure)
    assert str(outcome.failure) == "f:7: Crash: killed by SIGKILL"
    assert (outcome.documents, outcome.failed) == (1, 1)
    records = [json.loads(line) for line in outcome.output.splitlines()]
    assert len(records) == lines
    for record in records:
        assert record["error"]["line"] == 7
        assert record["input"] == "{}"


class Crash(Exception):
    stack = "where it was"


def test_the_stack_of_a_task_that_was_stopped_is_its_traceback():
    block = Block("f", 7, b"{}", 0)
    assert transform.death_of(job(traceback=True), block, "timeout", Crash()).traceback == "where it was"
    assert transform.death_of(job(), block, "timeout", Crash()).traceback is None


# ---- several documents, or none ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("count_up", b"0\n1\n2\n"),  # a generator
        ("an_iterator", b"0\n1\n2\n"),
        ("a_list", b"[0,1,2]\n"),
        ("nothing", b""),
        ("null", b"null\n"),
        ("nulls", b"null\n1\nnull\n"),
        ("reuses", b"[0]\n[1]\n"),
    ],
)
def test_what_gives_several_documents(function, expected):
    outcome = run(b"3\n", function)
    assert (outcome.output, outcome.documents, outcome.failed) == (expected, 1, 0)


@pytest.mark.parametrize(("function", "expected"), [("null", b""), ("nulls", b"1\n"), ("same", b"false\n0\n")])
def test_null_is_dropped_on_request(function, expected):
    assert run(b"false\n0\n" if function == "same" else b"3\n", function, drop_null=True).output == expected


def test_a_generator_that_fails_gives_nothing():
    outcome = run(b"1\n2\n", "fails_later", on_error="skip", traceback=True)
    assert (outcome.output, outcome.failed) == (b"", 2)
    assert "in fails_later" in outcome.failure.traceback
    assert "transform.py" not in outcome.failure.traceback


def test_one_of_several_that_is_not_json_fails_the_document():
    assert run(b"1\n", "yields_a_set", on_error="skip").output == b""


# ---- errors in a list, and further attempts ----------------------------------------------------------------


def test_failures_are_listed():
    outcome = run(b"1\n3\nx\n", "fail_on_three", on_error="skip", list_errors=True)
    assert outcome.output == b"1\n"
    assert [json.loads(line) for line in outcome.errors.splitlines()] == [
        {
            "file": "in.jsonl", "line": 2, "how": "function", "type": "ValueError",
            "message": "three is not allowed", "input": "3",
        },
        {
            "file": "in.jsonl", "line": 3, "how": "input", "type": "JSONDecodeError",
            "message": "Expecting value (column 1)", "input": "x",
        },
    ]  # fmt: skip


def test_a_block_ends_where_the_function_is_to_be_tried_again():
    outcome = run(b"1\nx\n3\n4\n", "fail_on_three", on_error="skip", retries=True)
    assert (outcome.output, outcome.documents, outcome.failed, outcome.stopped) == (b"1\n", 2, 1, 3)
    line, rest = transform.split_at(Block("f", 1, b"1\nx\n3\n4\n", 8), 3)
    assert (line.line, line.data, rest.line, rest.data) == (3, b"3", 4, b"4\n")
    assert transform.split_at(Block("f", 5, b"3\n\n", 3), 5)[1] is None


def test_a_line_that_a_function_for_text_cannot_decode_is_not_tried_again():
    given = Job(Target("json", "loads"), True, "skip", False, list_errors=True, retries=True)
    outcome = transform.run(given, Block("f", 1, b"nope\n1\n", 7))
    assert (outcome.output, outcome.failed, outcome.stopped) == (b"1\n", 1, None)
    assert json.loads(outcome.errors)["how"] == "input"


def test_a_line_alone_that_fails_says_so_to_the_pool():
    block = Block("f", 9, b"3\n", 2)
    with pytest.raises(transform.FunctionFailed) as raised:
        transform.run_again(job("fail_on_three", retries=True), block)
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again.failure) == "f:9: ValueError: three is not allowed"
    assert transform.run_again(job("fail_on_three"), block).failed == 1


# ---- input that is not one document per line ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "shape"),
    [
        (b'[\n{"a": 1}\n]\n', "array"),
        (b'\xef\xbb\xbf[{"a": 1},\n', "array"),
        (b'[{"n": 1}]\n', "array"),
        (b'{\n"a": 1\n}\n', "spread"),
        (b'{"a": 1, "b": {\n', "spread"),
        (b'{"a": nope}\n', ""),
        (b"nope\n", ""),
    ],
)
def test_the_first_line_shows_what_a_file_is(data, shape):
    assert run(data, "increment").failure.shape == shape
    assert run(data, "increment", line=2).failure.shape == ""


# ---- pacing ------------------------------------------------------------------------------------------------


def test_blocks_begin_with_one_line():
    assert Pace().lines == 1


def test_a_fast_function_gets_long_blocks():
    pace = Pace()
    for _ in range(10):
        pace.learn(pace.lines, pace.lines * TARGET_SECONDS / 1e6)
    assert pace.lines == MAX_LINES


def test_a_slow_function_gets_one_line_at_a_time():
    pace = Pace()
    pace.lines = MAX_LINES
    for _ in range(10):
        pace.learn(pace.lines, pace.lines * 1.0)
    assert pace.lines == 1


def test_one_strange_measurement_is_believed_only_so_far():
    pace = Pace()
    pace.lines = 100
    pace.learn(100, 3600.0)
    assert pace.lines == 25
    pace.learn(25, 0.0)
    assert pace.lines == 100
    pace.learn(0, 5.0)
    assert pace.lines == 100


@given(st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, math.inf, allow_nan=False))))
def test_there_is_always_a_sensible_number_of_lines(measurements):
    pace = Pace()
    for lines, seconds in measurements:
        pace.learn(lines, seconds)
        assert 1 <= pace.lines <= MAX_LINES
