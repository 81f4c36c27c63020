"""The choice that a pass offers about one convolution weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.passes.convolution.conv_cost import cost, offered
from structopt_onnx.passes.convolution.conv_rows import dense, rewritten
from structopt_onnx.passes.convolution.conv_site import site_of
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.convolution.conv_rows import Layout
    from structopt_onnx.passes.convolution.conv_site import ConvSite

FloatArray = npt.NDArray[np.float64]
Factors = tuple[Sequence[FloatArray], FloatArray | None]
"""The weight of each stage, and what the output's mean loses, float64 [m]."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One layout that was fitted.

    Parameters
    ----------
    label
        Name of the option.
    layout
        What to put in the convolution's place.
    error
        Its relative squared error.
    build
        Makes the weights.
    """

    label: str
    layout: Layout
    error: float
    build: Callable[[], Factors]


def choice_of(
    site: ConvSite,
    facts: Facts,
    target: str,
    candidates: Iterable[Candidate],
    moments: Moments | None,
    *,
    centred: bool = True,
    spectrum: tuple[float, ...] = (),
) -> Choice | None:
    """Return a choice of those candidates that no other beats; None when there are none.

    Parameters
    ----------
    site, facts
        The weight and what is known.
    target
        Where costs are predicted.
    candidates
        Those with no finite error below 1 are left out.
    moments
        What they were fitted to; None for the weight alone.
    centred
        Whether the bias gets back what the mean loses.
    spectrum
        Of the outputs, where candidates cut them.
    """
    name = site.weight.name or ""
    corrected = centred and moments is not None
    added = site.outputs if corrected and any(use.bias is None for use in site.uses) else 0
    bias = Cost(parameters=added, bytes=int(added * site.tensor.dtype.itemsize))
    before = cost(site, facts, dense(site), target)

    def patch(candidate: Candidate, scope: Scope, facts: Facts) -> Patch | Refusal:
        found = site_of(name, scope, facts, thin=True)
        if isinstance(found, Refusal):
            return found
        return rewritten(found, scope, candidate.layout, candidate.build())

    options = [
        Option(
            candidate.label,
            candidate.error,
            before,
            cost(site, facts, candidate.layout, target) + bias,
            partial(patch, candidate),
            candidate.layout.output_rank,
        )
        for candidate in candidates
        if np.isfinite(candidate.error) and candidate.error < 1
    ]
    if not options:
        return None
    return Choice(
        frozenset({name}),
        site.uses[0].made.name or "",
        offered(options),
        "weights" if moments is None else "calibration",
        0.0 if moments is None else moments.count / moments.mean.size,
        spectrum,
    )
