"""The parts of the page that are text, tables and bars. Pure: numbers -> HTML. They need no script.

A part of which there is nothing to say is empty.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from pidfdpool.cli.report import words
from pidfdpool.cli.report.analysis import BOUNDS, MICROSECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pidfdpool.cli.report.advice import Advice
    from pidfdpool.cli.report.analysis import Analysis, Death, Function, WorkerTime
    from pidfdpool.cli.report.lives import Split

MOST_WORKERS = 64  # rows; the others are in the row of all
MOST_FUNCTIONS = 200
MOST_HISTOGRAMS = 12
MOST_DEATHS = 200
MOST_LOST = 10  # tasks named in a row
COLOURS = 10  # of functions
_PARTS = {
    "start": "from the request for a worker until it was ready",
    "wait": "nothing ran although there were tasks: waiting for the host, and handing tasks over",
    "work": "tasks ran",
    "idle": "there was nothing to run",
}
_HEIGHT = 60  # of a histogram, in its own units; a bucket is 10 wide
_BUCKET = 10


def advice(found: Sequence[Advice]) -> str:
    """Return the advice."""
    if not found:
        return ""
    items = "".join(f"<li><strong>{escape(each.observed)}</strong> {escape(each.suggestion)}</li>" for each in found)
    return _section("advice", "What could be better", f"<ul>{items}</ul>")


def workers(numbers: Analysis) -> str:
    """Return how the workers' time is split."""
    if not numbers.workers:
        return ""
    legend = "".join(
        f'<li><span class="swatch part-{part}"></span>{part}: {escape(text)}</li>' for part, text in _PARTS.items()
    )
    rows = [_worker_row("all workers", numbers.split, numbers.attempts, numbers.starts, _died(numbers.workers))]
    rows += [
        _worker_row(worker.name, worker.split, worker.tasks, worker.starts, worker.deaths)
        for worker in numbers.workers[:MOST_WORKERS]
    ]
    head = ["worker", "its time", *_PARTS, "tasks", "starts", "deaths"]
    text = f'<ul class="legend">{legend}</ul>{_table(head, rows, numeric=7, wide=1)}'
    if len(numbers.workers) > MOST_WORKERS:
        text += f"<p>{len(numbers.workers) - MOST_WORKERS:,} more workers are in the first row only.</p>"
    return _section("workers", "The workers' time", text)


def _died(workers: Iterable[WorkerTime]) -> int:
    return sum(worker.deaths for worker in workers)


def _worker_row(name: str, split: Split, tasks: int, starts: int, deaths: int) -> list[str]:
    shares = {part: split.share(part) for part in _PARTS}
    told = ", ".join(f"{part} {words.share(share)}" for part, share in shares.items())
    bar = "".join(
        f'<span class="part-{part}" style="width:{share:.4%}" title="{part} {words.share(share)}"></span>'
        for part, share in shares.items()
        if share > 0
    )
    return [
        escape(name),
        f'<div class="bar" role="img" aria-label="{escape(told)}">{bar}</div>',
        *(
            f"{words.share(share)} <small>{words.duration(getattr(split, part))}</small>"
            for part, share in shares.items()
        ),
        f"{tasks:,}",
        f"{starts:,}",
        f"{deaths:,}",
    ]


def functions(numbers: Analysis) -> str:
    """Return the table of functions, and the histograms of their durations."""
    found = numbers.functions
    if not found:
        return ""
    total = sum(function.total for function in found)
    rows = [
        [
            f'<span class="swatch" style="background:{_colour(rank)}"></span>{_code(function.name)}',
            f"{function.count:,}",
            f"{function.calls:,}",
            f"{function.failed:,}",
            words.duration(function.total),
            words.share(function.total / total) if total > 0 else "",
            words.duration(function.median),
            words.duration(function.p95),
            words.duration(function.longest),
        ]
        for rank, function in enumerate(found[:MOST_FUNCTIONS])
    ]
    head = ["function", "attempts", "calls", "not done", "total", "share", "median", "p95", "longest"]
    text = _table(head, rows, numeric=8)
    if len(found) > MOST_FUNCTIONS:
        text += f"<p>{len(found) - MOST_FUNCTIONS:,} more functions took less time in all.</p>"
    return _section("functions", "Functions", text) + _histograms(found[:MOST_HISTOGRAMS])


def _histograms(found: Sequence[Function]) -> str:
    filled = [index for function in found for index, count in enumerate(function.buckets) if count]
    first, last = min(filled), max(filled)
    figures = "".join(_histogram(function, rank, first, last) for rank, function in enumerate(found))
    text = (
        "<p>How many attempts took how long. The buckets grow by 1, 2, 5, 10, and are the same for all; each function"
        f' has a height of its own.</p><div class="histograms">{figures}</div>'
    )
    return _section("histogram", "Durations", text)


def _histogram(function: Function, rank: int, first: int, last: int) -> str:
    highest = max(function.buckets)
    width = (last - first + 1) * _BUCKET
    bars = []
    for index in range(first, last + 1):
        count = function.buckets[index]
        if not count:
            continue
        height = max(1.0, count / highest * _HEIGHT)
        bars.append(
            f'<rect x="{(index - first) * _BUCKET + 0.5}" y="{_HEIGHT - height:.2f}" width="{_BUCKET - 1}"'
            f' height="{height:.2f}"><title>{_bucket(index)}: {count:,}</title></rect>'
        )
    bounds = f"<span>{_bound(first)}</span><span>{_bound(last + 1)}</span>"
    told = f"{words.count(function.count, 'attempt')}, median {words.duration(function.median)}"
    label = escape(f"durations of {function.name}: {told}")
    return (
        f'<figure style="--bar:{_colour(rank)}"><figcaption>{_code(function.name)} <small>{told}</small></figcaption>'
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width} {_HEIGHT}" preserveAspectRatio="none">'
        f'{"".join(bars)}</svg><div class="bounds" aria-hidden="true">{bounds}</div></figure>'
    )


def _colour(rank: int) -> str:
    """Return the colour of the function that so many others have more time than; the timeline has the same ones."""
    return f"var(--f{rank})" if rank < COLOURS else "var(--other)"


def _bound(index: int) -> str:
    return words.duration(BOUNDS[index] * MICROSECOND) if index < len(BOUNDS) else ""


def _bucket(index: int) -> str:
    if index == 0:
        return f"less than {_bound(1)}"
    return f"{_bound(index)} to {_bound(index + 1)}" if index + 1 < len(BOUNDS) else f"{_bound(index)} or more"


def slowest(numbers: Analysis) -> str:
    """Return the attempts that took longest."""
    if not numbers.slowest:
        return ""
    rows = [
        [
            _code(task.function),
            f"{task.number}" + (f" <small>attempt {task.attempt}</small>" if task.attempt > 1 else ""),
            words.duration(task.duration),
            words.duration(task.queued),
            words.duration(task.begin),
            escape(task.worker),
            _size(task.request),
            _size(task.result),
            escape(task.outcome) + (f" <small>{escape(task.error)}</small>" if task.error else ""),
        ]
        for task in numbers.slowest
    ]
    head = ["function", "task", "took", "queued for", "begun at", "worker", "call", "result", "outcome"]
    return _section("slowest", "Slowest tasks", _table(head, rows))


def _size(number: int | None) -> str:
    return "?" if number is None else words.size(number)


def deaths(numbers: Analysis) -> str:
    """Return the deaths of workers; the unexpected ones in a table."""
    if not numbers.deaths:
        return ""
    unexpected = [death for death in numbers.deaths if not death.expected]
    ordinary = len(numbers.deaths) - len(unexpected)
    text = ""
    if unexpected:
        rows = [
            [
                words.duration(death.time),
                escape(death.worker) + (f" <small>pid {death.pid}</small>" if death.pid is not None else ""),
                escape(death.how) or "?",
                escape(death.text)
                + (f" <small>{escape(death.reason)}</small>" if death.reason not in death.text else ""),
                _lost(death.lost),
            ]
            for death in unexpected[:MOST_DEATHS]
        ]
        text = _table(["at", "worker", "how", "what was observed", "tasks lost"], rows)
    if len(unexpected) > MOST_DEATHS:
        text += f"<p>{len(unexpected) - MOST_DEATHS:,} later deaths are not shown.</p>"
    if ordinary:
        text += f"<p>{words.count(ordinary, 'worker')} ended as the pool wanted.</p>"
    return _section("deaths", "Deaths", text)


def _unless_told(death: Death) -> str:
    return "" if death.reason in death.text else f" <small>{escape(death.reason)}</small>"


def _lost(tasks: Sequence[str]) -> str:
    if not tasks:
        return "none"
    named = "<br>".join(_code(task) for task in tasks[:MOST_LOST])
    return named if len(tasks) <= MOST_LOST else f"{named}<br>and {len(tasks) - MOST_LOST:,} more"


def _section(name: str, title: str, text: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{text}</section>'


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: int = 0, wide: int = -1) -> str:
    """Return a table of cells that are HTML; the first heads its row. numeric: how many columns are numbers."""

    def kind(index: int) -> str:
        if index == wide:
            return ' class="wide"'
        return ' class="number"' if index >= len(head) - numeric else ""

    top = "".join(f'<th scope="col"{kind(index)}>{escape(text)}</th>' for index, text in enumerate(head))
    body = "".join(
        "<tr>"
        + f'<th scope="row">{row[0]}</th>'
        + "".join(f"<td{kind(index)}>{cell}</td>" for index, cell in enumerate(row) if index)
        + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'
