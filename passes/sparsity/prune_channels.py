"""prune-channels: channels between two layers go, what reads the others is fitted anew.

What it does
    Looks for two products of which the second reads what the first makes, with nothing but
    operators on each channel by itself in between. Offers to leave out those channels that the
    second can best make up for by the others: its weights for them are fitted by least squares to
    what it made of all on calibration data, and its bias gets back what the mean loses. The first
    layer's filters, and constants on the way, lose the same channels.

Why
    Half of the channels are half of both layers' weights and products, in any runtime. Channels
    are chosen by what they add to the others, not by their size: one that two others imply is free.

Leaves alone
    Channels that anything else reads: a sum with another branch, a normalization or softmax over
    channels, an output of the graph. Layers whose weights are shared, overridable, grouped, or in
    subgraphs and functions.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.linalg.channels import channel_order, fitted_to
from structopt_onnx.linalg.pruning import Inputs
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.conv_statistic import LARGEST_PATCH
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.passes.sparsity.hidden_channels import hidden_before
from structopt_onnx.passes.sparsity.lone_weight import lone_weights
from structopt_onnx.passes.sparsity.pruning_fit import Fit, is_still
from structopt_onnx.rewriting.cost import Cost, node_cost
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from structopt_onnx.linalg.channels import Ints
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.passes.sparsity.hidden_channels import HiddenChannels
    from structopt_onnx.passes.sparsity.pruning_fit import FloatArray

# Layers too narrow for this many counts at the target's multiple get halves and quarters of it.
_FEW_COUNTS = 4
_MOST_OPTIONS = 16
# Versions of one pair of layers that are kept once they were made.
_KEPT = 2


@dataclass(frozen=True)
class PruneChannels(Pass):
    """Options of prune-channels.

    Parameters
    ----------
    target
        Where costs are predicted; also gives the multiple of channels.
    multiple
        Channels left are a multiple of this; 0 takes the target's, less for narrow layers.
    unseen
        Least share of white inputs among those that are fitted, more where the samples are few:
        samples never show all that comes. 0 fits the samples alone.
    """

    name: ClassVar[str] = "prune-channels"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    brief: ClassVar[bool] = False
    refusals: ClassVar[dict[str, str]] = {
        "statistics-too-large": f"the second layer sees more than {LARGEST_PATCH} numbers",
        "too-few-channels": "no multiple that the target likes is less than what there is",
        "superseded": "an earlier rewrite of the plan took one of the layers",
    }

    target: str = "cpu"
    multiple: int = 0
    unseen: float = 0.01

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the moments of the inputs of each second layer, where they are not too large."""
        for hidden in _pairs(scope, facts):
            if hidden.reader.factor().shape[1] <= LARGEST_PATCH and self._counts(hidden):
                yield hidden.reader.read

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice | Refusal]:
        """Yield one choice per pair of layers, with an option per number of channels."""
        found = _pairs(scope, facts)
        yield from facts.workers.each(lambda hidden: self._proposal(hidden, facts), found)

    def _counts(self, hidden: HiddenChannels) -> list[int]:
        target, count = TARGETS[self.target], hidden.count
        convolves = "Conv" in {hidden.maker.node.op_type, hidden.reader.node.op_type}
        step = self.multiple
        if not step:
            step = whole = target.conv_rank_multiple if convolves else target.rank_multiple
            while step * _FEW_COUNTS > count and step * 4 > whole and step > 1:
                step //= 2
        every = range(step, count, step)
        places = np.linspace(0, len(every) - 1, min(len(every), _MOST_OPTIONS)).round()
        return [every[int(k)] for k in places]

    def _proposal(self, hidden: HiddenChannels, facts: Facts) -> Choice | Refusal:
        reader, name = hidden.reader, hidden.reader.weight.name or ""
        counts = self._counts(hidden)
        if not counts:
            return Refusal("too-few-channels", f"{hidden.count} channels", name)
        if reader.factor().shape[1] > LARGEST_PATCH:
            # Orders and fits take the cube of this.
            return Refusal("statistics-too-large", f"{reader.factor().shape[1]} inputs", name)
        fit = Fit.of(reader, facts.statistic(reader.read), self.unseen)
        weight = reader.factor()
        inputs = fit.inputs(weight) or Inputs(np.eye(weight.shape[1]))
        args = weight, inputs.moment, hidden.taps, counts[0]
        order = facts.workers.solve(channel_order, *args)[::-1]
        maker = Fit.of(hidden.maker, None, 0.0).found
        before = self._cost(hidden, facts, hidden.count)

        @lru_cache(_KEPT)
        def made(count: int) -> tuple[Ints, FloatArray, FloatArray]:
            again, kept = fit.found.factor(), np.sort(order[:count])
            seen = fit.inputs(again) or Inputs(np.eye(again.shape[1]))
            factor = fitted_to(again, seen.moment, _places(kept, hidden.taps))
            return kept, factor, fit.bias(again, _widened(again, factor, kept, hidden.taps))

        def patch(count: int, scope: Scope, facts: Facts) -> Patch | Refusal:
            last = last_factor(name, scope, facts)
            now = None if isinstance(last, Refusal) else hidden_before(last, scope, facts)
            if now is None or not (is_still(fit.found, now.reader) and is_still(maker, now.maker)):
                return Refusal("superseded", "the layers are not what was fitted", name)
            return now.cut(scope, *made(count))

        options = []
        for count in reversed(counts):
            kept = np.sort(order[:count])
            factor = fitted_to(weight, inputs.moment, _places(kept, hidden.taps))
            error = fit.error(weight, _widened(weight, factor, kept, hidden.taps))
            after = self._cost(hidden, facts, count)
            label = f"{count} of {hidden.count} channels"
            options.append(Option(label, error, before, after, partial(patch, count)))
        return Choice(
            frozenset({hidden.maker.weight.name or "", name}),
            reader.made.values[0],
            tuple(options),
            "weights" if fit.moments is None else "calibration",
            0.0 if fit.moments is None else fit.moments.count / fit.moments.mean.size,
        )

    def _cost(self, hidden: HiddenChannels, facts: Facts, count: int) -> Cost:
        """Count both layers and the constants on the way, at so many channels."""
        sizes = [hidden.maker.factor().size, hidden.reader.factor().size]
        sizes += [v.const_value.size for v in hidden.sliced if v.const_value is not None]
        size = sum(sizes) * count // hidden.count
        macs = sum(node_cost(f.node, facts).macs for f in (hidden.maker, hidden.reader))
        total = Cost(
            parameters=size,
            bytes=size * hidden.reader.stored(hidden.reader.factor()).itemsize,
            macs=macs * count // hidden.count,
            nodes=2 + len(hidden.between),
        )
        return replace(total, seconds=TARGETS[self.target].seconds(total))


def _pairs(scope: Scope, facts: Facts) -> Iterator[HiddenChannels]:
    for reader in lone_weights(scope, facts):
        hidden = hidden_before(reader, scope, facts) if isinstance(reader, LastFactor) else None
        if hidden is not None:
            yield hidden


def _places(kept: Ints, taps: int) -> Ints:
    """Return the numbers of all that the reader sees of channels."""
    return (kept[:, None] * taps + np.arange(taps)).reshape(-1)


def _widened(weight: FloatArray, factor: FloatArray, kept: Ints, taps: int) -> FloatArray:
    """Return the map from all channels that looks at those kept only."""
    whole = np.zeros_like(weight)
    whole[:, _places(kept, taps)] = factor
    return whole
