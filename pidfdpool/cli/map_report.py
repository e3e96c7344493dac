"""What `map --report FILE` adds to a run: a trace of its pool, or the page of one.

Called by `map`, in the host, on its main thread. A FILE that ends in .json is the trace itself, which grows while the
run lasts. Any other is the page, which is written completely or not at all when the run is over, whatever its exit
code. The trace of the page has no name meanwhile, so nothing of it stays.
"""

from __future__ import annotations

import tempfile
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from pidfdpool.cli import outputs
from pidfdpool.cli.outputs import WriteError
from pidfdpool.cli.usage import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pidfdpool.cli.streams import Output

OPTION = "--report"


class Report(Protocol):
    """The report of a run."""

    def tracing(self, pool: Any) -> AbstractContextManager[object]:
        """Trace the pool for a block."""

    def finish(self) -> list[str]:
        """Complete the report, and return what its reader has to know, in a sentence each.

        Raises:
            WriteError: it cannot be written.
        """


@contextmanager
def opened(name: str, stdout: Output, inputs: Sequence[str]) -> Iterator[Report]:
    """Open the report of a run for the block.

    name: the FILE. stdout: standard output, as `private_stdout` gives it. inputs: the input files.

    Raises:
        UsageError: it cannot be written.
    """
    if any(outputs.are_same(name, other) for other in inputs):
        raise UsageError(f"argument {OPTION}: {name!r} is an input, too")
    if name.lower().endswith(".json"):
        yield _TraceFile(name)
        return
    with outputs.opened(OPTION, name, stdout, inputs) as output, tempfile.TemporaryFile() as trace:
        yield _Page(output, f"/proc/self/fd/{trace.fileno()}")


class _TraceFile:
    """The trace itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    @contextmanager
    def tracing(self, pool: Any) -> Iterator[None]:
        """Trace the pool for a block. Raises UsageError if the file cannot be written."""
        with ExitStack() as stack:
            try:
                stack.enter_context(pool.trace(self._name))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UsageError(f"argument {OPTION}: {self._name!r}: {reason}") from None
            yield

    def finish(self) -> list[str]:
        """Do nothing: the trace is complete."""
        return []


class _Page:
    """The page of a trace that has no name."""

    def __init__(self, output: outputs.Destination, trace: str) -> None:
        self._output, self._trace = output, trace
        self._is_traced = False

    @contextmanager
    def tracing(self, pool: Any) -> Iterator[None]:
        """Trace the pool for a block."""
        with pool.trace(self._trace):
            self._is_traced = True
            yield

    def finish(self) -> list[str]:
        """Make the page, and write it. If the run ended before there was a pool, there is none."""
        if not self._is_traced:
            return []
        from pidfdpool.cli import report

        try:
            page, notices = report.page_of(self._trace)
        except report.TraceError as error:
            raise WriteError(f"cannot write the report: {error}") from error
        self._output.write(page)
        self._output.finish()
        return notices
