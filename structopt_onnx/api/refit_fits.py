"""What a refit writes: new numbers for the factors of a plan, fitted in one of several ways."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.calibration.paired import Pair
from structopt_onnx.linalg.moments import Moments
from structopt_onnx.linalg.refit import pulled, refitted
from structopt_onnx.linalg.separable import ridge_for, unseen_share
from structopt_onnx.linalg.through import fitted_through
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.statistic import PatchStatistic
from structopt_onnx.passes.low_rank.factor_pair import (
    FactorPair,
    activation_behind,
    pair_with,
)
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.manager import Planned
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.linalg.piecewise import PiecewiseLinear
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope

    Array = npt.NDArray[np.float64]
    Rows = npt.NDArray[np.float32]
    Written = Callable[[Scope, Facts], Patch | Refusal]

LAST, BOTH, THROUGH = "last factor", "both factors", "through the activation"
KINDS = (LAST, BOTH, THROUGH)
"""From what changes least on. Where a factor can't be fitted in one way, it is in the one before.

The last factor alone; both factors of a pair, by regression of reduced rank; and both, or the last
one alone, to what a Relu, LeakyRelu or Clip behind them makes of it.
"""

# Least share of white inputs among those that both factors are made for: samples never show all
# that comes, and the pass that made the factors reckoned with it.
_UNSEEN = 0.01
# Numbers observed per pair, and multiply-accumulates per turn of the fit through an activation.
_MOST_NUMBERS = 2**24
_TURN_MACS = 2e8
# Inputs whose moment is decomposed, and outputs whose is in every turn.
_LARGEST_INPUT, _LARGEST_OUTPUT = 4096, 512


@dataclass(frozen=True)
class Signer(Pass):
    """Who signs for patches that write new numbers; they come of a plan, so it proposes nothing."""

    exactness: ClassVar[Exactness] = Exactness.LOSSY
    canonical: ClassVar[bool] = True  # new numbers cost what the old ones did

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Choice | Refusal]:
        """Yield nothing."""
        del scope, facts
        return iter(())


@dataclass(frozen=True)
class Refit(Signer):
    """Signs for factors that were fitted anew."""

    name: ClassVar[str] = "refit"
    refusals: ClassVar[dict[str, str]] = {"superseded": "the factor is gone"}


@dataclass(frozen=True, eq=False)
class Fitting:
    """A last factor of a plan's model, with what can be fitted along with it.

    Parameters
    ----------
    last
        The factor.
    pair
        It and the one before; None where that serves others too, or has taps behind it.
    activation
        What reads the output; None where it is not straight in pieces, or not alone.
    """

    last: LastFactor
    pair: FactorPair | None
    activation: PiecewiseLinear | None

    @classmethod
    def of(cls, name: str, scope: Scope, facts: Facts) -> Fitting | None:
        """Find the factor of a weight; None where it is gone."""
        last = last_factor(name, scope, facts)
        if isinstance(last, Refusal):
            return None
        pair = pair_with(last, scope, facts)
        if pair is not None and sum(pair.product().shape) > _LARGEST_INPUT:
            pair = None
        made = next(o for o in _outputs(last) if o.name == last.made.values[0])
        activation = activation_behind(made, facts)
        if sum(last.factor().shape) > _LARGEST_INPUT or len(last.bias) > _LARGEST_OUTPUT:
            activation = None
        return cls(last, pair, activation)

    def allows(self, kind: str) -> bool:
        """Whether it can be fitted in a way."""
        allowed = {BOTH: self.pair is not None, THROUGH: self.activation is not None}
        return allowed.get(kind, True)

    @property
    def seen(self) -> Pair:
        """What the last factor reads, and what it is to make of it."""
        return Pair(self.last.read, self.last.made)

    @property
    def observed(self) -> Pair | None:
        """What single observations are needed of; None where moments do."""
        if self.pair is not None:
            return Pair(self.pair.first.read, self.last.made)
        return None if self.activation is None else self.seen

    def most(self, nbytes: int) -> int:
        """Return how many observations are needed at most, float32, within a bound of memory."""
        m, n = (self.last.factor() if self.pair is None else self.pair.product()).shape
        numbers = min(_MOST_NUMBERS, nbytes // 4)
        return max(1, int(min(numbers / (m + n), _TURN_MACS / (m * n))))

    def planned(
        self,
        kind: str,
        label: str,
        last: tuple[Array, Array] | None,
        rows: Mapping[Pair, Rows],
    ) -> Planned | None:
        """Fit in a way, or in the best one before it that can be; None where none can.

        Parameters
        ----------
        kind, label
            One of `KINDS`, and the option's label.
        last
            What `by_moments` returned, where the moments could be had.
        rows
            Observations of `observed` [N, n + m], where they could be had.
        """
        seen = None if self.observed is None else rows.get(self.observed)
        kinds = KINDS[KINDS.index(kind) :: -1] if kind in KINDS else KINDS[:1]
        for way in (way for way in kinds if self.allows(way)):
            if way == LAST and last is not None:
                return self._planned(label, (last[0],), last[1])
            if way != LAST and seen is not None:
                return self._by_rows(seen, label, through=way == THROUGH)
        return None

    def by_moments(self, moments: Moments) -> tuple[Array, Array]:
        """Fit the last factor alone to moments of `seen`; return it and the bias."""
        old = self.last.factor()
        ridge = ridge_for(moments.count / old.shape[1])
        return refitted(old, self.last.bias, moments, ridge=ridge, free=self.free)

    def _by_rows(self, rows: Rows, label: str, *, through: bool) -> Planned | None:
        old, bias, rank = self.last.factor(), self.last.bias, None
        if self.pair is not None:
            old, bias, rank = self.pair.product(), self.pair.offset, old.shape[1]
        wide, n = rows.astype(np.float64), old.shape[1]
        mean = wide.mean(axis=0)
        away = wide - mean
        moments = Moments(len(wide), mean, away.T @ away / len(wide))
        support = len(wide) / n / self._shared
        regression, cross, made = pulled(
            old,
            bias,
            moments,
            ridge=ridge_for(support),
            free=self.free,
            rank=rank,
            unseen=unseen_share(_UNSEEN, support),
        )
        if regression.degenerate:
            return None
        if through and self.activation is not None:
            inputs, outputs = wide[:, :n], wide[:, n:]
            (factors, offset), _, _ = fitted_through(self.activation, inputs, outputs, regression)
        else:
            factors, offset = regression.fit(cross, made)
        return self._planned(label, factors, offset)

    @property
    def _shared(self) -> float:
        """In how many patches a number of the input is, of those that lie side by side."""
        read = self.last.read if self.pair is None else self.pair.first.read
        if not isinstance(read, PatchStatistic):
            return 1.0
        rows = zip(read.kernel, read.strides, strict=True)
        return math.prod(max(1.0, taps / stride) for taps, stride in rows)

    @property
    def free(self) -> bool:
        """Whether a bias can be written."""
        return self.last.addend is not None

    def _planned(self, label: str, factors: tuple[Array, ...], offset: Array) -> Planned:
        name, free = self.last.weight.name or "", self.free

        def patch(scope: Scope, facts: Facts) -> Patch | Refusal:
            now = Fitting.of(name, scope, facts)
            if now is None:
                return Refusal("superseded", "no product with it alone", name)
            shapes = [now.last.factor().shape]
            if len(factors) > 1:
                shapes += [] if now.pair is None else [now.pair.first.factor().shape]
            if shapes != [f.shape for f in factors] or now.free != free:
                return Refusal("superseded", "it is not what was fitted", name)
            if now.pair is not None and len(factors) > 1:
                return now.pair.written(scope, factors[0], factors[1], offset)
            return now.last.written(scope, factors[0], offset)

        option = Option(label, 0.0, Cost(), Cost(), patch)
        choice = Choice(frozenset({name}), self.last.made.values[0], (option,), "calibration")
        return Planned(Refit(), choice, option)


def _outputs(last: LastFactor) -> Iterator[ir.Value]:
    for output in last.node.outputs:
        yield output
        for use in output.uses():
            yield from use.node.outputs
