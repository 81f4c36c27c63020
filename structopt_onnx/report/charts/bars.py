"""Operators before and after, as pairs of bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.report.record import Report


@dataclass(frozen=True)
class Pair:
    """One name and its numbers before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Bars:
    """Pairs of bars.

    Parameters
    ----------
    name, title, says
        As of a `Chart`.
    rows
        From the top.
    """

    name: str
    title: str
    says: str
    rows: tuple[Pair, ...]

    @property
    def longest(self) -> int:
        """The largest number, at least 1."""
        return max((max(row.before, row.after) for row in self.rows), default=1) or 1


def operator_bars(report: Report) -> Bars:
    """Show how often each operator occurs, those that changed most first."""
    before, after = report.before.operators, report.after.operators
    rows = [Pair(name, before.get(name, 0), after.get(name, 0)) for name in {**before, **after}]
    rows.sort(key=lambda row: (-abs(row.after - row.before), -row.before, row.name))
    return Bars(
        "operators",
        "Operators before and after",
        "Nodes per operator, subgraphs and functions included; what changed most comes first.",
        tuple(rows),
    )
