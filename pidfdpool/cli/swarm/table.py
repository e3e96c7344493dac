"""The table of nodes that is printed at the end. Pure: rows in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Row(NamedTuple):
    """One node. attempts: how often it was started. deaths: in what ways these ended, and how often each."""

    node: int
    attempts: int
    state: str
    deaths: Mapping[str, int]


_HEADS = ("node", "attempts", "state", "deaths")


def render(rows: Sequence[Row]) -> str:
    """Return the table, a line for each node; there is no line end at the end."""
    cells = [_HEADS, *((str(row.node), str(row.attempts), row.state, _counted(row.deaths)) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS) - 1)]
    return "\n".join(
        "  ".join([row[0].rjust(widths[0]), row[1].rjust(widths[1]), row[2].ljust(widths[2]), row[3]]).rstrip()
        for row in cells
    )


def _counted(deaths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {death}" if count > 1 else death for death, count in deaths.items()) or "none"
