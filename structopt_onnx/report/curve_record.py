"""Error against size: what the planner could have chosen, and what was tried of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structopt_onnx.rewriting.cost import Cost


@dataclass(frozen=True)
class CurvePoint:
    """One plan for the whole model.

    Parameters
    ----------
    cost
        What the plan leaves of the model's cost; without seconds.
    predicted
        Error of single sites, added in quadrature.
    measured
        Error on the probe part; None where it was not tried.
    """

    cost: Cost
    predicted: float
    measured: float | None = None


@dataclass(frozen=True)
class Curve:
    """What other budgets would have come to.

    Parameters
    ----------
    offered
        The plan of least cost for each of several errors, by what single sites told; the first
        changes nothing.
    tried
        Every plan measured on the probe part, in order.
    """

    offered: tuple[CurvePoint, ...] = ()
    tried: tuple[CurvePoint, ...] = ()
