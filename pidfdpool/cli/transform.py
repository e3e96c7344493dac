"""Transforms a block of lines into a block of output: the task of the workers of `map`.

`run` is called in workers, on their thread; `crash_outcome` and `split` in the host, on its main thread.

The worker decodes, calls the function and encodes, so the host only moves bytes. Documents are JSON as in RFC 8259,
in both directions: NaN and Infinity, which Python would accept, are errors. Output is compact, UTF-8, one document
per line.

An error of one document is an outcome of that document, never of the block. `on_error` tells what follows from it.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pidfdpool.cli.target import Target

OnError = Literal["fail", "skip", "record"]
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Job:
    """How to process each document. It is the same for all blocks of a run."""

    target: Target
    text: bool  # the function takes the line itself, not the document in it
    on_error: OnError
    traceback: bool


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


def run(job: Job, block: Block) -> Outcome:
    """Transform the block's documents."""
    function = job.target.load()
    began = time.perf_counter()
    output: list[bytes] = []
    documents = failed = 0
    first: Failure | None = None
    for number, line in _documents(block):
        documents += 1
        try:
            text = line.decode()
            result = function(text.removesuffix("\r") if job.text else _decode(text))
            output.append(_encode(result))
        except BaseException as error:
            # SystemExit, too: a function that exits for one document must not end the run without a message.
            failed += 1
            failure = _explain(job, block, number, error)
            first = first or failure
            if job.on_error == "fail":
                break
            if job.on_error == "record":
                output.append(record(failure, line))
    output.append(b"")
    return Outcome(b"\n".join(output), documents, failed, first, time.perf_counter() - began)


def crash_outcome(job: Job, block: Block, message: str) -> Outcome:
    """Return the outcome of a block of one document whose worker died. In the host."""
    (number, line) = next(_documents(block))
    failure = Failure(block.name, number, "WorkerCrashed", message)
    output = record(failure, line) + b"\n" if job.on_error == "record" else b""
    return Outcome(output, 1, 1, failure)


def split(block: Block) -> list[Block]:
    """Return a block for each document of this one. In the host."""
    return [Block(block.name, number, line, 0) for number, line in _documents(block)]


def record(failure: Failure, line: bytes) -> bytes:
    """Return the document that is written in place of one that failed; its `input` is the line as it was read."""
    error: dict[str, Any] = {
        "type": failure.kind,
        "message": failure.message,
        "file": failure.name,
        "line": failure.line,
    }
    if failure.traceback is not None:
        error["traceback"] = failure.traceback
    return _encode({"error": error, "input": line.decode(errors="replace").removesuffix("\r")})


def _documents(block: Block) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each line that is not blank."""
    data = block.data
    if block.line == 1 and data.startswith(_BOM):
        data = data[len(_BOM) :]
    for number, line in enumerate(data.split(b"\n"), block.line):
        if line and not line.isspace():
            yield number, line


def _explain(job: Job, block: Block, number: int, error: BaseException) -> Failure:
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

        ours = error.__traceback__
        trace = "".join(format_exception(type(error), error, ours.tb_next if ours else None))
    return Failure(block.name, number, kind, message, trace)


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
