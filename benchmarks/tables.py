"""The tables, in Markdown: a row for each contender, a column for each metric, reasons for what is missing below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.figures import Round, known, ratios, summarized, values_of, verdict, written
from benchmarks.scenario import Group, Limit, Metric, Scenario

Results = Mapping[str, Mapping[str, Sequence[Round]]]  # scenario -> contender -> rounds

LEGEND = (
    "Medians, with the least and the greatest in brackets. *n* x: the median of the ratios to "
    f"{CONTENDERS[BASELINE].title} in the same round, turned so that more than 1 is better than it."
)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first row is the head, with columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def cell(metric: Metric, rounds: Sequence[Round], baseline: Sequence[Round], is_baseline: bool) -> str:
    """Return the median, its spread and its ratio, or a word for why there is none."""
    values = values_of(rounds, metric.key)
    summary = summarized(known(values))
    if summary is None:
        told = verdict(rounds)
        return told[0] if told else "-"
    text = written(summary.median)
    if len(known(values)) > 1:
        text += f" ({written(summary.low)}-{written(summary.high)})"
    ratio = summarized(ratios(values, values_of(baseline, metric.key), metric.more_is_better))
    if ratio is not None and metric.compared and not is_baseline:
        text += f" {written(ratio.median)}x"
    return text


def group_table(group: Group, results: Results) -> str:
    """Return a group's table, for the scenarios of it that were run; nothing if there were none."""
    scenarios = [scenario for scenario in group.scenarios if scenario.name in results]
    contenders = [name for name in CONTENDERS if any(name in results[scenario.name] for scenario in scenarios)]
    if not contenders:
        return ""
    columns = [
        (scenario, metric)
        for scenario in scenarios
        for metric in scenario.metrics
        if any(known(values_of(rounds, metric.key)) for rounds in results[scenario.name].values())
    ]
    rows = [["", *(scenario.column(metric) for scenario, metric in columns)]]
    for name in contenders:
        row = [CONTENDERS[name].title]
        for scenario, metric in columns:
            its = results[scenario.name]
            row.append(cell(metric, its.get(name, ()), its.get(group.baseline, ()), name == group.baseline))
        rows.append(row)
    return "\n".join([markdown(rows), *_reasons(scenarios, contenders, results)])


def _reasons(scenarios: Sequence[Scenario], contenders: Sequence[str], results: Results) -> list[str]:
    """Return a line for each reason, naming whom it concerns, and where if that is not everywhere."""
    concerned: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name in contenders:
        for scenario in scenarios:
            told = verdict(results[scenario.name].get(name, ()))
            if told is not None:
                concerned.setdefault(told, {}).setdefault(CONTENDERS[name].title, []).append(scenario.title)
    lines = []
    for (word, reason), where in concerned.items():
        names = [
            title
            if len(places) == len(scenarios)
            else f"{title} ({'; '.join(filter(None, places))})".removesuffix(" ()")
            for title, places in where.items()
        ]
        lines.append(f"* {word}: {reason}: {', '.join(names)}.")
    return ["", *lines] if lines else []


def limits_table(limits: Mapping[str, Limit], results: Mapping[str, Sequence[Round]]) -> str:
    """Return the table of what the machine can do."""
    rows = [["the machine itself", "unit", "median (least-greatest)"]]
    for name, limit in limits.items():
        if name in results:
            metric = limit.as_scenario().metrics[0]
            rows.append([limit.title, limit.unit, cell(metric, results[name], (), True)])
    return markdown(rows) if len(rows) > 1 else ""
