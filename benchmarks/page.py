"""The page: the machine, the limits, every table, and links to the plots."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.limits import LIMITS
from benchmarks.scenarios.catalogue import GROUPS
from benchmarks.tables import LEGEND, group_table, limits_table


def head(run: Mapping[str, Any]) -> str:
    """Say where and how it was measured."""
    lines = [machine.sentence(run["machine"]), ""]
    quick = " (quick: smaller numbers of everything than the texts say)" if run["quick"] else ""
    lines.append(f"Rounds: {run['rounds']}{quick}, each measurement in a fresh process. {LEGEND}")
    if run["left_out"]:
        lines += ["", "Left out: " + "; ".join(run["left_out"]) + "."]
    return "\n".join(lines)


def written(run: Mapping[str, Any], page: Path, plots: Path | None) -> str:
    """Return the page as Markdown. Plots are linked relative to where the page will be."""
    parts = ["# Performance", "Written by `python -m benchmarks --page`.", head(run)]
    if run["limits"]:
        parts += ["## Limits", limits_table(LIMITS, run["limits"])]
    for group in GROUPS:
        table = group_table(group, run["results"])
        if table:
            parts += [f"## {group.title}", group.text, table]
            plot = plots / f"{group.name}.svg" if plots else None
            if plot is not None and plot.exists():
                parts.append(f"![{group.title}]({os.path.relpath(plot, page.parent)})")
    return "\n\n".join(parts) + "\n"
