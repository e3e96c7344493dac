"""The page: numbers -> HTML, in one text that needs no other file and no network.

Pure, but for the files of `assets`, which are read from the package. Every text of the trace is escaped. The page's
own policy (Content-Security-Policy) forbids every request.
"""

from __future__ import annotations

from html import escape
from importlib import resources
from string import Template
from typing import TYPE_CHECKING

from pidfdpool._version import __version__
from pidfdpool.cli.report import encoding, sections, words
from pidfdpool.cli.report.advice import advise
from pidfdpool.cli.report.analysis import analyse

if TYPE_CHECKING:
    from pidfdpool.cli.report.analysis import Analysis
    from pidfdpool.cli.report.trace import Trace

EARLY_END = "the trace ends early: its host was killed or is still running"
_SCRIPTS = ("data.js", "drawing.js", "timeline.js")


def render(trace: Trace) -> str:
    """Return the page of a trace."""
    numbers = analyse(trace)
    described, columns = encoding.pack(trace, numbers)
    assets = resources.files("pidfdpool.cli.report") / "assets"
    texts = {name: (assets / name).read_text("utf-8") for name in ("page.html", "style.css", *_SCRIPTS)}
    return Template(texts["page.html"]).substitute(
        title=escape(f"Report of {trace.pool}"),
        style=texts["style.css"],
        notices="".join(f'<p class="notice" role="note">{escape(text)}</p>' for text in notices(trace)),
        summary=_summary(trace, numbers),
        advice=sections.advice([] if trace.is_of_swarm else advise(numbers)),
        workers=sections.workers(numbers),
        functions=sections.functions(numbers),
        slowest=sections.slowest(numbers),
        deaths=sections.deaths(numbers),
        version=escape(__version__),
        described=described,
        columns=columns,
        script="\n".join(texts[name] for name in _SCRIPTS),
    )


def notices(trace: Trace) -> list[str]:
    """Return what a reader has to know of the trace itself."""
    found = []
    if not trace.complete:
        found.append(f"{EARLY_END[0].upper()}{EARLY_END[1:]}.")
    if trace.dropped:
        found.append(f"{words.count(trace.dropped, 'event')} had no room in the trace, so the numbers lack them.")
    if trace.is_of_swarm:
        found.append(
            "It is of a swarm: workers are nodes, and tasks the times in which their processes were healthy."
        )
    elif not len(trace.tasks):
        found.append("No task has ended in this trace.")
    return found


def _summary(trace: Trace, numbers: Analysis) -> str:
    shown = [
        ("duration", words.duration(numbers.duration)),
        ("workers", f"{trace.max_workers if trace.max_workers is not None else len(numbers.workers)}"),
        ("tasks", f"{numbers.tasks:,}"),
    ]
    if numbers.calls != numbers.tasks:
        shown.append(("calls", f"{numbers.calls:,}"))
    shown += [(name, f"{count:,}") for name, count in numbers.outcomes.items()]
    shown += [(f"{name} before they ran", f"{count:,}") for name, count in numbers.unrun.items()]
    if numbers.retried:
        shown.append(("retried", f"{numbers.retried:,}"))
    if numbers.deaths:
        unexpected = sum(not death.expected for death in numbers.deaths)
        shown.append(("deaths", f"{len(numbers.deaths):,} ({unexpected:,} unexpected)"))
    shown.append(("throughput", f"{words.rate(numbers.throughput)} {_unit(numbers)}/s"))
    if numbers.payload:
        shown.append(("payloads", words.size(numbers.payload)))
    shown += [("Python", trace.python), ("pidfdpool", f"{trace.version}, {trace.start_method}")]
    if trace.started is not None:
        shown.append(("begun", words.moment(trace.started)))
    return "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in shown)


def _unit(numbers: Analysis) -> str:
    return "calls" if numbers.calls != numbers.tasks else "tasks"
