"""The page: the machine, what is to be said of the figures, the limits, every table, and links to the plots."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import ablations, machine, targets
from benchmarks.limits import LIMITS
from benchmarks.scenarios.ablation import ABLATION
from benchmarks.scenarios.catalogue import GROUPS
from benchmarks.tables import LEGEND, group_table, limits_table

REMARKS = Path(__file__).with_name("remarks.md")  # written by hand


def head(run: Mapping[str, Any]) -> str:
    """Say where and how it was measured."""
    lines = [machine.sentence(run["machine"]), ""]
    quick = " (quick: smaller numbers of everything than the texts say)" if run["quick"] else ""
    bounded = f", as many as {run['budget']:g} minutes allow, those that take long once" if run.get("budget") else ""
    lines.append(f"Rounds: {run['rounds']}{bounded}{quick}, each measurement in a fresh process. {LEGEND}")
    if bounded:
        lines.append('"-" also says that there was no time for it.')
    if run["left_out"]:
        lines += ["", "Left out: " + "; ".join(run["left_out"]) + "."]
    return "\n".join(lines)


def results(run: Mapping[str, Any], page: Path | None, plots: Path | None) -> list[str]:
    """Return the parts with figures. Plots are linked if it is known where they and the page will be."""
    parts = []
    if run["limits"]:
        parts += ["## Limits", limits_table(LIMITS, run["limits"])]
    for group in GROUPS:
        table = ablations.table(run["results"]) if group is ABLATION else group_table(group, run["results"])
        if table:
            parts += [f"## {group.title}", group.text, table]
            plot = plots / f"{group.name}.svg" if plots else None
            if plot is not None and page is not None and plot.exists():
                parts.append(f"![{group.title}]({os.path.relpath(plot, page.parent)})")
    table = targets.table(run)
    if table:
        parts += [f"## {targets.TITLE}", targets.TEXT, table]
    return parts


def written(run: Mapping[str, Any], page: Path, plots: Path | None, of: Path | None = None) -> str:
    """Return the page as Markdown. Plots are linked relative to where the page will be.

    of: the page whose remarks hold for this one, too: this one has only the figures, of another Python for instance.
    """
    how = "Written by `python -m benchmarks --page`."
    if of is None:
        parts = ["# Performance", how, head(run), REMARKS.read_text().strip(), *results(run, page, plots)]
        return "\n\n".join(parts) + "\n"
    python = ".".join(run["machine"]["python"].split(".")[:2])
    link = f"[{of.name}]({os.path.relpath(of, page.parent)})"
    parts = [f"# Performance on Python {python}", f"{how} {link} says how to read the figures.", head(run)]
    return "\n\n".join([*parts, *results(run, page, plots)]) + "\n"
