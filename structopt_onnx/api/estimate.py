"""What a lossy budget might buy, from spectra alone: a hint printed with an exact run."""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING

from structopt_onnx.api.sites import statistics_of
from structopt_onnx.report.record import EstimateRow
from structopt_onnx.rewriting.cost import Cost, graph_cost
from structopt_onnx.rewriting.passes import Choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.api.exact import ExactStage
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.rewriting.passes import Pass

_SECONDS = 5.0
_FEW_SAMPLES = 16
# With fewer observations per dimension, covariances look emptier than they are.
_LEAST_SUPPORT = 2.0
_LOCAL_ERRORS = (0.01, 0.05, 0.1)
# Eigendecompositions cost about this many (smaller dimension)^3 a second.
_CUBES_PER_SECOND = 4e9


def estimate(bench: Bench, exact: ExactStage) -> tuple[tuple[EstimateRow, ...], str]:
    """Sum the smallest options whose local error stays under a few levels.

    Bounded to about five seconds; nothing is probed, so nothing is said about the outputs.

    Returns
    -------
    rows
        One per level; empty when there is nothing to say or no time to say it. Sites that the
        time or the samples did not suffice for are counted as they are.
    basis
        ``calibration`` or ``weights``.
    """
    started = time.monotonic()
    manager, facts = exact.manager, exact.manager.facts(exact.model)
    matrices = [
        sorted(int(d) for d in value.const_value.shape.numpy()[-2:])
        for value in exact.model.graph.initializers.values()
        if value.const_value is not None and len(value.const_value.shape) > 1
    ]
    if sum(small * small * large for small, large in matrices) > _SECONDS * _CUBES_PER_SECOND:
        return (), "weights"
    steps = [step for step in bench.lossy_steps if step.brief]
    basis = "weights"
    try:
        with ExitStack() as stack:
            few = bench.samples[:_FEW_SAMPLES]
            if not few.synthetic and stack.enter_context(statistics_of(bench, exact, few, steps)):
                basis = "calibration"
            totals, found, unknown = _sums(steps, manager.facts(exact.model), started)
    except Exception:  # noqa: BLE001 - a hint must not cost the run; --max-error tells the error
        return (), basis
    whole = graph_cost(exact.model, facts)
    rows = tuple(
        EstimateRow(level, whole.parameters + saved.parameters, whole.macs + saved.macs)
        for level, saved in totals.items()
    )
    # Of what was not looked at nothing can be said, least of all that there is nothing to gain.
    known = any(saved != Cost() for saved in totals.values()) if unknown else found
    return (rows if known else ()), basis


def _sums(
    steps: Sequence[Pass], facts: Facts, started: float
) -> tuple[dict[float, Cost], int, int]:
    """Return what each level saves, and how many sites are known and unknown."""
    totals = {level: Cost() for level in _LOCAL_ERRORS}
    found = unknown = 0
    counted: set[tuple[str, str]] = set()
    for step, scope in product(steps, facts.scopes):
        for proposal in step.propose(scope, facts):
            late = time.monotonic() - started > _SECONDS
            if isinstance(proposal, Choice):
                weights = {(scope.path, name) for name in proposal.site}
                if counted & weights:  # another way to rewrite the same
                    continue
                counted |= weights
                trusted = _trusted(proposal) and not late
                found, unknown = found + trusted, unknown + (not trusted)
                for level in _LOCAL_ERRORS if trusted else ():
                    totals[level] += _saved(proposal, level)
            if late:
                break
    return totals, found, unknown


def _trusted(choice: Choice) -> bool:
    return choice.basis == "weights" or choice.support >= _LEAST_SUPPORT


def _saved(choice: Choice, level: float) -> Cost:
    fitting = [option for option in choice.options if option.error <= level**2]
    if not fitting:
        return Cost()
    smallest = min(fitting, key=lambda option: option.after.parameters)
    return Cost(
        parameters=smallest.after.parameters - smallest.before.parameters,
        macs=smallest.after.macs - smallest.before.macs,
    )
