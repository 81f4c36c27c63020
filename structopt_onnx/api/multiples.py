"""Ranks at the multiples that this machine was measured to like, where they are not the usual."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.measured_costs import measurable
from structopt_onnx.errors import ModelError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.pipeline import pipeline_text
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.cost_cache import CostCache
from structopt_onnx.runtime.staircase import rank_multiple

if TYPE_CHECKING:
    from collections.abc import Callable

    from structopt_onnx.api.options import OptimizeOptions
    from structopt_onnx.rewriting.passes import Step

# Once per machine, on top of the user's seconds for costs.
_SECONDS = 10.0


def with_measured_multiples(
    options: OptimizeOptions, progress: Callable[[str], None] = lambda _: None
) -> OptimizeOptions:
    """Return options whose lossy passes aim at the multiples measured on this machine.

    They become part of the pipeline's text, so that the record of a run finds the same options
    wherever it is replayed. Unchanged where nothing is measured, or what is measured is what the
    target assumes.
    """
    lossy = any(step.exactness is Exactness.LOSSY for step in options.steps())
    if not (options.lossy and lossy) or not measurable(options):
        return options
    progress("rank multiples")
    assumed, cache = TARGETS[options.target], CostCache()
    seconds = min(_SECONDS, options.cost_seconds)
    try:
        products = rank_multiple("matmul", cache, seconds) or assumed.rank_multiple
        channels = rank_multiple("conv", cache, seconds) or assumed.conv_rank_multiple
    except ModelError:
        return options
    if (products, channels) == (assumed.rank_multiple, assumed.conv_rank_multiple):
        return options
    aim = f"{options.target}:{products}:{channels}"
    steps = [_aimed(step, options.target, aim) for step in options.steps()]
    return replace(options, passes=pipeline_text(steps))


def _aimed(step: Step, target: str, aim: str) -> Step:
    """Return a step with another target, if it has the usual one."""
    if "target" in {f.name for f in fields(step)} and getattr(step, "target", "") == target:
        changed: dict[str, Any] = {"target": aim}
        return replace(step, **changed)
    return step
