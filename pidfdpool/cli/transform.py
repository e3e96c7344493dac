"""Transforms a block of lines into a block of output: the task of the workers of `map`.

`run` and `run_again` are called in workers, on their thread; everything below them in the host, on its main thread.

The worker decodes, calls the function and encodes, so the host only moves bytes. Documents are JSON as in RFC 8259,
in both directions: NaN and Infinity, which Python would accept, are errors. Output is compact, UTF-8, one document
per line.

A function that returns an iterator, as each generator does, gives a document for each of its items. All else that it
returns is one document, a list as well.

An error of one document is an outcome of that document, never of the block. `on_error` tells what follows from it. A
document that fails gives nothing, although its generator may have yielded something before.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pidfdpool.cli.hints import Shape, shape_of

if TYPE_CHECKING:
    from pidfdpool.cli.target import Target

OnError = Literal["fail", "skip", "record"]
# "input": the line could not be decoded. "function": it raised, or its result cannot be encoded. The others: the
# worker died.
How = Literal["input", "function", "crash", "timeout", "memory"]
_BOM = b"\xef\xbb\xbf"
_PLAIN = {dict, list, str, int, float, bool, tuple}  # of which it is known at once that they are no iterators


@dataclass(frozen=True, slots=True)
class Job:
    """How to process each document. It is the same for all blocks of a run."""

    target: Target
    text: bool  # the function takes the line itself, not the document in it
    on_error: OnError
    traceback: bool
    drop_null: bool = False  # a result that is null is left out
    list_errors: bool = False  # each failure is a line of `Outcome.errors`
    retries: bool = False  # a document whose function failed is tried again, by `run_again`


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive whole lines of one file."""

    name: str
    line: int  # the number of its first line, from 1
    data: bytes
    size: int  # its share of the bytes in the file, which is not the length of `data` if the file is compressed


@dataclass(frozen=True, slots=True)
class Failure:
    """One document that could not be transformed."""

    name: str
    line: int
    kind: str
    message: str
    traceback: str | None = None
    how: How = "function"
    shape: Shape = ""  # what the file seems to be, if this is its first line

    def __str__(self) -> str:
        what = f"{self.name}:{self.line}: {self.kind}"
        if self.message:
            what += f": {self.message}"
        return what if self.traceback is None else f"{what}\n{self.traceback.rstrip()}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a block. With on_error="fail" the output ends before the first document that failed."""

    output: bytes
    documents: int
    failed: int = 0
    failure: Failure | None = None  # the first one
    seconds: float = 0.0
    errors: bytes = b""  # with list_errors: a line for each failure
    stopped: int | None = None  # the line whose function failed and is to be tried again; the block ends before it


class FunctionFailed(Exception):
    """The function failed for the one document of a task. The pool may try it again."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


def run(job: Job, block: Block) -> Outcome:
    """Transform the block's documents, up to the first that is to be tried again."""
    outcome, _ = _run(job, block)
    return outcome


def run_again(job: Job, block: Block) -> Outcome:
    """Transform a block of one document.

    Raises:
        FunctionFailed: the document is to be tried again.
    """
    outcome, failure = _run(job, block)
    if outcome.stopped is not None and failure is not None:
        raise FunctionFailed(failure)
    return outcome


def _run(job: Job, block: Block) -> tuple[Outcome, Failure | None]:
    """Return the outcome, and the failure that it stopped at."""
    function = job.target.load()
    began = time.perf_counter()
    output: list[bytes] = []
    errors: list[bytes] = []
    documents = failed = 0
    first = stop = None
    for number, line in _documents(block):
        how: How = "input"
        try:
            text = line.decode()
            given = text.removesuffix("\r") if job.text else _decode(text)
            how = "function"
            result = function(given)
            if type(result) in _PLAIN:
                output.append(_encode(result))
            else:
                output += _encode_all(result, job.drop_null)
        except BaseException as error:
            # SystemExit, too: a function that exits for one document must not end the run without a message.
            if job.text and isinstance(error, json.JSONDecodeError):
                how = "input"  # json.loads and its kin decode in the function
            shape = shape_of(line) if block.line == 1 and documents == 0 else ""
            failure = _explain(job, block, number, error, how, shape)
            if job.retries and how == "function":
                stop = failure
                break
            failed += 1
            first = first or failure
            if job.list_errors:
                errors.append(error_line(failure, line))
            if job.on_error == "record":
                output.append(record(failure, line))
            if job.on_error == "fail":
                documents += 1
                break
        documents += 1
    outcome = Outcome(
        _joined(output),
        documents,
        failed,
        first,
        time.perf_counter() - began,
        _joined(errors),
        None if stop is None else stop.line,
    )
    return outcome, stop


def _encode_all(result: Any, drop_null: bool) -> list[bytes]:
    """Return the documents that a function has given, each as a line."""
    if result is None:
        return [] if drop_null else [b"null"]
    if not isinstance(result, Iterator):
        return [_encode(result)]
    return [_encode(each) for each in result if each is not None or not drop_null]


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join((*lines, b"")) if lines else b""


def failed_outcome(job: Job, block: Block, failure: Failure) -> Outcome:
    """Return the outcome of a block of one document that failed. In the host."""
    (_, line) = next(_documents(block))
    output = record(failure, line) + b"\n" if job.on_error == "record" else b""
    errors = error_line(failure, line) + b"\n" if job.list_errors else b""
    return Outcome(output, 1, 1, failure, errors=errors)


def death_of(job: Job, block: Block, how: How, error: BaseException) -> Failure:
    """Return the failure of a block of one document whose worker died. In the host."""
    (number, line) = next(_documents(block))
    stack = getattr(error, "stack", None) if job.traceback else None
    shape = shape_of(line) if number == 1 else ""
    return Failure(block.name, number, type(error).__qualname__, str(error), stack, how, shape)


def split(block: Block) -> list[Block]:
    """Return a block for each document of this one. In the host."""
    return [Block(block.name, number, line, 0) for number, line in _documents(block)]


def split_at(block: Block, number: int) -> tuple[Block, Block | None]:
    """Return the line of this number, and what comes after it in the block, each as a block. In the host."""
    lines = block.data.split(b"\n")
    index = number - block.line
    rest = b"\n".join(lines[index + 1 :])
    after = Block(block.name, number + 1, rest, 0) if rest and not rest.isspace() else None
    return Block(block.name, number, lines[index], 0), after


def record(failure: Failure, line: bytes) -> bytes:
    """Return the document that is written in place of one that failed; its `input` is the line as it was read."""
    error = {"type": failure.kind, "message": failure.message, "file": failure.name, "line": failure.line}
    return _encode({"error": error | _trace(failure), "input": _as_read(line)})


def error_line(failure: Failure, line: bytes) -> bytes:
    """Return the document that --errors has for one that failed."""
    where = {"file": failure.name, "line": failure.line}
    why = {"how": failure.how, "type": failure.kind, "message": failure.message}
    return _encode({**where, **why, **_trace(failure), "input": _as_read(line)})


def _trace(failure: Failure) -> dict[str, Any]:
    return {} if failure.traceback is None else {"traceback": failure.traceback}


def _as_read(line: bytes) -> str:
    return line.decode(errors="replace").removesuffix("\r")


def _documents(block: Block) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line that is not blank."""
    data = block.data
    if block.line == 1 and data.startswith(_BOM):
        data = data[len(_BOM) :]
    for number, line in enumerate(data.split(b"\n"), block.line):
        if line and not line.isspace():
            yield number, line


def _explain(job: Job, block: Block, number: int, error: BaseException, how: How, shape: Shape) -> Failure:
    kind = type(error).__qualname__
    if isinstance(error, json.JSONDecodeError) and error.lineno == 1:
        # The error's own text has "line 1 column 9", which would contradict the line number in the file.
        message = f"{error.msg} (column {error.colno})"
    else:
        try:
            message = str(error)
        except Exception as worse:
            message = f"(the error has no message: str() raised {type(worse).__qualname__})"
    trace = None
    if job.traceback:
        from traceback import format_exception

        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_code.co_filename == __file__:
            shown = shown.tb_next  # the user's frames come after those of this file
        trace = "".join(format_exception(type(error), error, shown))
    return Failure(block.name, number, kind, message, trace, how, shape)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_ascii_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def _encode(value: Any) -> bytes:
    try:
        return _encoder.encode(value).encode()
    except UnicodeEncodeError:
        # A lone surrogate is legal in JSON as an escape, but it has no UTF-8 encoding.
        return _ascii_encoder.encode(value).encode()
