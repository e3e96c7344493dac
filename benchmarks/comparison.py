"""Two builds of ours beside each other: who is measured in which order, and the table of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import aims, machine
from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Round, ratios, summarized, values_of, verdict, written
from benchmarks.rounds import Stage
from benchmarks.scenario import Metric, Scenario
from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.tables import Results, cell, markdown

THIS, OTHER = "this", "other"
LEGEND = (
    "Medians, with the least and the greatest in brackets. The ratio is the median of those of each round, turned so "
    "that more than 1 says that this build is better. Where its brackets hold 1, the rounds do not agree."
)


def side(contender: str, build: str) -> str:
    """Return the name under which a contender goes with one of the builds."""
    return f"{contender}@{build}"


def sides_of(name: str) -> tuple[str, str]:
    """Return the contender and the build of such a name."""
    contender, _, build = name.rpartition("@")
    return contender, build


def stages(runs: Sequence[tuple[Scenario, list[str]]], rounds: int) -> list[Stage]:
    """Return what is to be run: each contender by itself with one build after the other, so that they are neighbours.

    A scenario's own limit of rounds does not count: the fewer there are, the less a ratio says.
    """
    found = []
    for scenario, contenders in runs:
        for contender in contenders:
            both = (side(contender, THIS), side(contender, OTHER))
            found.append(Stage(scenario, both, rounds, always=both))
    return found


def gathered(its: Sequence[Stage]) -> dict[str, dict[str, list[Round]]]:
    """Return what was answered so far, by scenario and side."""
    results: dict[str, dict[str, list[Round]]] = {}
    for stage in its:
        if stage.answers:
            results.setdefault(stage.scenario.name, {}).update(stage.answers)
    return results


def head(run: Mapping[str, Any]) -> str:
    """Say what was compared, and where and how."""
    against = run["against"]
    lines = [machine.sentence(run["machine"]), ""]
    lines += [f"* {build}: {against[build]['path']}, version {against[build]['version']}" for build in (THIS, OTHER)]
    quick = " (quick: smaller numbers of everything)" if run["quick"] else ""
    bounded = f", as many as {run['budget']:g} minutes allow" if run.get("budget") else ""
    lines += [
        "",
        f"Rounds: {run['rounds']}{bounded}{quick}. Both are compiled copies in virtual environments of their own. "
        f"Each measurement is a fresh process, and the two take turns. {LEGEND}",
    ]
    if run["left_out"]:
        lines += ["", "Left out: " + "; ".join(run["left_out"]) + "."]
    return "\n".join(lines)


def table(results: Results) -> str:
    """Return the table, with a row for each figure, and reasons below for what is missing; nothing of no results."""
    rows = [["scenario", "contender", "figure", THIS, OTHER, "ratio"]]
    for name, contender, this, other in _pairs(results):
        for metric in SCENARIOS[name].metrics:
            figures = [cell(metric, its, (), True) for its in (this, other)]
            if figures != ["-", "-"]:
                title = CONTENDERS[contender].title
                rows.append([name, title, metric.column, *figures, ratio(metric, this, other)])
    reasons = list(_reasons(results))
    return "\n".join([markdown(rows), *([""] if reasons else []), *reasons]) if len(rows) > 1 else ""


def _pairs(results: Results) -> Iterator[tuple[str, str, Sequence[Round], Sequence[Round]]]:
    """Yield scenario, contender, and the rounds of both builds."""
    for name in SCENARIOS:
        its = results.get(name, {})
        for contender in CONTENDERS:
            this, other = its.get(side(contender, THIS), ()), its.get(side(contender, OTHER), ())
            if this or other:
                yield name, contender, this, other


def ratio(metric: Metric, this: Sequence[Round], other: Sequence[Round]) -> str:
    """Return how many times as good this build is, with the spread of the rounds."""
    found = ratios(values_of(this, metric.key), values_of(other, metric.key), metric.more_is_better)
    summary = summarized(found)
    if summary is None or not metric.compared:
        return "-"
    spread = f" ({written(summary.low)}-{written(summary.high)})" if len(found) > 1 else ""
    return f"{written(summary.median)}x{spread}"


def _reasons(results: Results) -> Iterator[str]:
    for name, contender, this, other in _pairs(results):
        for build, its in ((THIS, this), (OTHER, other)):
            told = verdict(its)
            if told is not None:
                yield f"* {told[0]}: {told[1]}: {name}, {CONTENDERS[contender].title}, {build}."


def parts(results: Results) -> list[str]:
    """Return all that has figures: each of them, and those that were aimed at."""
    found = [table(results) or "Nothing was measured."]
    aimed = aims.table(results, side("", THIS), side("", OTHER))
    return [*found, f"## {aims.TITLE}", aims.TEXT, aimed] if aimed else found


def page(run: Mapping[str, Any]) -> str:
    """Return all of it as a page of Markdown."""
    return "\n\n".join(["# Two builds compared", head(run), *parts(run["results"])]) + "\n"
