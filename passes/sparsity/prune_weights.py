"""prune-weights: weights become zero, the others are fitted anew.

What it does
    Offers each weight of a matrix product or a convolution at rising shares of zeros. Which
    weights go, and what the others become, is chosen so that the layer makes nearly the same of
    its calibration data; what the mean of the output loses is put back into the bias where there
    is a constant one. Without data, or where moments would be too large, the smallest weights go.
    Zeros may lie anywhere, or as ``pattern`` says: with ``2:4``, 2 of every 4 in a row are kept.

Why
    Stored with a bit per element, a weight of which half is left takes 53 % of its bytes. The
    runtime multiplies by zeros as by other numbers: that is why this is offered only where bytes
    are minimized, or kept to a share. Bytes are what `encode-sparse` makes of them.

Leaves alone
    Weights that several products read, that something else reads, that the caller can override,
    that lie in subgraphs or functions, of other types than float16, float32 and float64; grouped
    and transposed convolutions, first layers; and what would not take fewer bytes.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from structopt_onnx.linalg.moments import LARGEST_DIMENSION
from structopt_onnx.linalg.pruning import Pattern, pruned
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_PATCH
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.passes.sparsity.lone_weight import REFUSALS, lone_weights
from structopt_onnx.passes.sparsity.pruning_fit import Fit, Packed, is_still
from structopt_onnx.rewriting.cost import node_cost
from structopt_onnx.rewriting.encodings import encoded_bytes
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.sparsity.pruning_fit import FloatArray
    from structopt_onnx.rewriting.cost import Objective

# Shares of zeros on offer: what they save in bytes differs by an eighth or so.
_LEVELS = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Options of prune-weights.

    Parameters
    ----------
    pattern
        Where zeros lie: ``any``, or ``2:4``, ``4:8`` and the like for so many kept of so many
        inputs in a row.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    """

    name: ClassVar[str] = "prune-weights"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    brief: ClassVar[bool] = False
    lowers: ClassVar[frozenset[Objective]] = frozenset({"bytes"})
    counts_zeros: ClassVar[bool] = True
    refusals: ClassVar[dict[str, str]] = {
        **REFUSALS,
        "no-zeros-pay": "at no share of zeros on offer would the weight take fewer bytes",
        "superseded": "an earlier rewrite of the plan took the weight",
    }

    pattern: str = "any"
    unseen: float = 0.01

    def __post_init__(self) -> None:
        """Raise `ValueError` for a pattern that is none."""
        self._patterns()

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the inputs of each weight found, where they are not too large."""
        for found in lone_weights(scope, facts):
            if isinstance(found, LastFactor):
                most = LARGEST_PATCH if found.node.op_type == "Conv" else LARGEST_DIMENSION
                if found.factor().shape[1] <= most:
                    yield found.read

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per weight, with an option per share of zeros that pays."""
        found = lone_weights(scope, facts)
        yield from facts.workers.each(lambda weight: self._proposal(weight, facts), found)

    def _patterns(self) -> tuple[Pattern, ...]:
        if self.pattern == "any":
            return tuple(Pattern(zeros) for zeros in _LEVELS)
        return (Pattern.of(self.pattern),)

    def _proposal(self, found: LastFactor | Refusal, facts: Facts) -> Choice | Refusal:
        if isinstance(found, Refusal):
            return found
        fit = Fit.of(found, facts.statistic(found.read), self.unseen)
        weight, name = found.factor(), found.weight.name or ""
        inputs, cost = fit.inputs(weight), node_cost(found.node, facts)
        before = replace(cost, parameters=weight.size, bytes=_bytes(found, weight))
        options = []
        for pattern in self._patterns():
            sparse = facts.workers.solve(pruned, weight, inputs, pattern)
            after = replace(before, bytes=_bytes(found, sparse))
            if after.bytes < before.bytes:
                label = self.pattern if pattern.group else f"{pattern.zeros:.0%} zeros"
                packed = Packed.of(sparse.astype(found.stored(sparse).dtype))
                patch = partial(_patch, fit.found, packed, fit.bias(weight, sparse), label)
                options.append(Option(label, fit.error(weight, sparse), before, after, patch))
        if not options:
            return Refusal("no-zeros-pay", f"shape {found.weight.shape}", name)
        return Choice(
            frozenset({name}),
            found.made.values[0],
            tuple(options),
            "weights" if fit.moments is None else "calibration",
            0.0 if fit.moments is None else fit.moments.count / fit.moments.mean.size,
        )


def _bytes(found: LastFactor, weight: FloatArray) -> int:
    return encoded_bytes(ir.tensor(found.stored(weight)))


def _patch(  # noqa: PLR0917 - the first four are bound
    fitted: LastFactor,
    packed: Packed,
    bias: FloatArray,
    label: str,
    scope: Scope,
    facts: Facts,
) -> Patch | Refusal:
    name = fitted.weight.name or ""
    now = last_factor(name, scope, facts)
    if isinstance(now, Refusal) or not is_still(fitted, now):
        return Refusal("superseded", "it is not what was fitted", name)
    return now.written(scope, packed.array(), bias, label)
