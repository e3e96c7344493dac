"""The plots, as SVG: bars with their spread for each metric, or lines where scenarios share an axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, LEFT_OUT
from benchmarks.figures import Summary, known, summarized, values_of, written
from benchmarks.scenario import Group, Metric, Scenario
from benchmarks.scenarios.catalogue import GROUPS
from benchmarks.tables import Results

_OURS = ("#0b6e4f", "#6bbf9a")
_WITHOUT = "#b5c9bf"
_OTHERS = ("#33415c", "#5c677d", "#7d8597", "#979dac", "#b08968", "#9c6644", "#7f5539", "#c08497", "#8e7dbe")
_COLUMNS = 3


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every group that has results, and return the files."""
    import matplotlib as mpl

    mpl.use("svg")
    # The same results make the same file, so that a diff shows what has changed.
    mpl.rcParams.update({"svg.hashsalt": "pidfdpool", "svg.fonttype": "none", "font.size": 8})
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for group in GROUPS:
        scenarios = [scenario for scenario in group.scenarios if scenario.name in results]
        lines = group.axis is not None and len(scenarios) > 1
        panels = _line_panels(scenarios, results) if lines else _bar_panels(scenarios, results)
        if panels:
            path = folder / f"{group.name}.svg"
            _draw(group, panels, path, lines)
            drawn.append(path)
    return drawn


def color(name: str) -> str:
    """Return a contender's colour: ours green, each other one its own, but all one where tricks are left out."""
    if name in LEFT_OUT:
        return _WITHOUT
    ours = [known_name for known_name in CONTENDERS if known_name.startswith("ours")]
    if name in ours:
        return _OURS[ours.index(name)]
    others = [known_name for known_name in CONTENDERS if known_name not in ours]
    return _OTHERS[others.index(name) % len(_OTHERS)]


Panel = tuple[str, Metric, dict[str, list[tuple[float, Summary]]]]  # title, metric, contender -> (place, figures)


def _bar_panels(scenarios: Sequence[Scenario], results: Results) -> list[Panel]:
    """Return a panel for each column of the table."""
    found = []
    for scenario in scenarios:
        for metric in scenario.metrics:
            points = _points(metric, [scenario], results)
            if points:
                found.append((scenario.column(metric), metric, points))
    return found


def _line_panels(scenarios: Sequence[Scenario], results: Results) -> list[Panel]:
    """Return a panel for each metric, with all scenarios in it."""
    found = []
    for metric in scenarios[0].metrics:
        points = _points(metric, scenarios, results)
        if points:
            found.append((metric.column, metric, points))
    return found


def _points(
    metric: Metric, scenarios: Sequence[Scenario], results: Results
) -> dict[str, list[tuple[float, Summary]]]:
    points: dict[str, list[tuple[float, Summary]]] = {}
    for name in CONTENDERS:
        for scenario in scenarios:
            summary = summarized(known(values_of(results[scenario.name].get(name, ()), metric.key)))
            if summary is not None:
                points.setdefault(name, []).append((scenario.at or 0.0, summary))
    return points


def _draw(group: Group, panels: Sequence[Panel], path: Path, lines: bool) -> None:
    from matplotlib import pyplot

    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.8 * columns, 2.9 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, (title, metric, points) in zip(axes.flat, panels, strict=False):
        better = "more is better" if metric.more_is_better else "less is better"
        axis.set_title(f"{title}\n{better}", fontsize=8)
        (_lines if lines else _bars)(axis, points)
        if lines:
            axis.set_xlabel(group.axis)
        axis.spines[["top", "right"]].set_visible(False)
    if lines:
        figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    figure.suptitle(group.title)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _bars(axis: Any, points: dict[str, list[tuple[float, Summary]]]) -> None:
    names = list(reversed(points))
    summaries = [points[name][0][1] for name in names]
    spread = [[each.median - each.low for each in summaries], [each.high - each.median for each in summaries]]
    bars = axis.barh(
        [CONTENDERS[name].title for name in names],
        [each.median for each in summaries],
        xerr=spread,
        color=[color(name) for name in names],
        error_kw={"linewidth": 0.8},
    )
    # The greatest may be a thousand times the least, whose bar is then none.
    axis.bar_label(bars, [written(each.median) for each in summaries], padding=3, fontsize=7)
    axis.margins(x=0.15)


def _lines(axis: Any, points: dict[str, list[tuple[float, Summary]]]) -> None:
    for name, series in points.items():
        places = [place for place, _ in series]
        axis.plot(
            places,
            [summary.median for _, summary in series],
            marker="o",
            markersize=3,
            linewidth=2 if name.startswith("ours") else 1,
            color=color(name),
            label=CONTENDERS[name].title,
        )
        axis.fill_between(
            places,
            [summary.low for _, summary in series],
            [summary.high for _, summary in series],
            color=color(name),
            alpha=0.12,
            linewidth=0,
        )
    axis.set_xscale("log")
    axis.set_yscale("log")
    places = sorted({place for series in points.values() for place, _ in series})
    axis.set_xticks(places, labels=[f"{place:g}" for place in places])
    axis.minorticks_off()
