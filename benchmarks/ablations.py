"""The table of tricks: a row for each trick and each scenario that shows it, made of the results alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.contenders import CONTENDERS
from benchmarks.figures import Round, ratios, summarized, values_of, written
from benchmarks.scenario import Metric
from benchmarks.scenarios.ablation import ABLATION, of_trick
from benchmarks.tables import Results, cell, markdown
from benchmarks.tricks import TRICKS, Trick


def table(results: Results) -> str:
    """Return the table, for what was run of it; nothing if that is nothing."""
    rows = [["left out", "shown by", "figure", "complete", "without", "worth"]]
    rows += [row for trick in TRICKS for row in _rows(trick, results)]
    return markdown(rows) if len(rows) > 1 else ""


def _rows(trick: Trick, results: Results) -> Iterator[list[str]]:
    for scenario in ABLATION.scenarios:
        its = results.get(scenario.name, {})
        without = its.get(of_trick(trick), ())
        complete = its.get(trick.beside, ())
        if scenario.name.removeprefix("trick-") not in trick.shown_by or not without:
            continue
        beside = "" if trick.beside == "ours" else f"; {CONTENDERS[trick.beside].title}"
        for metric in scenario.metrics:
            figures = [cell(metric, each, (), True) for each in (complete, without)]
            yield [trick.title, scenario.title + beside, metric.column, *figures, _worth(metric, complete, without)]


def _worth(metric: Metric, complete: Sequence[Round], without: Sequence[Round]) -> str:
    """Return how many times as good the complete pool is, in the same round."""
    found = summarized(ratios(values_of(complete, metric.key), values_of(without, metric.key), metric.more_is_better))
    return "-" if found is None or not metric.compared else f"{written(found.median)}x"
