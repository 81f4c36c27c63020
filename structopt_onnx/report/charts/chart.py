"""What a chart shows, as plain data: drawn as SVG for a page, as PNG for anything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["line", "steps", "dots"]
Role: TypeAlias = Literal["before", "after", "chosen", "limit", "plain"]
"""What something stands for, which decides its colour everywhere."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Parameters
    ----------
    label
        What it measures, with its unit.
    log
        Whether it is logarithmic; 0 lies at its lower end then, negative points are left out.
    percent
        Whether its numbers are shares to be written as percent.
    """

    label: str
    log: bool = False
    percent: bool = False


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Parameters
    ----------
    name
        For the legend.
    points
        Pairs of x and y.
    kind
        How they are drawn.
    role
        What they stand for.
    titles
        Words for each point; empty, or as long as `points`.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    kind: Kind
    role: Role
    titles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mark:
    """A straight line across the chart, and a band around it.

    Parameters
    ----------
    name
        For the legend.
    axis
        The axis that it stands on.
    at
        Where.
    role
        What it stands for.
    low, high
        Ends of the band; None without one.
    """

    name: str
    axis: Literal["x", "y"]
    at: float
    role: Role
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """One chart.

    Parameters
    ----------
    name
        Made of letters, digits and hyphens, for a file or an anchor.
    title
        A few words.
    says
        What it shows, for who can't see it or does not know how to read it.
    x, y
        The axes.
    series, marks
        What is drawn, the last on top.
    of
        What it is about, where several charts have the same title.
    """

    name: str
    title: str
    says: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    of: str = ""
