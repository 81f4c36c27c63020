"""Weights that multiply one input: a first factor for all of them and a second one for each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from structopt_onnx.linalg.low_rank import from_input_moment, from_weight
from structopt_onnx.linalg.separable import unseen_share
from structopt_onnx.model.edit import Edit, Fresh, NewNode, reading_replacements
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.statistic import Statistic
from structopt_onnx.passes.low_rank.matmul_pair import Fit, constant, wide_product
from structopt_onnx.passes.low_rank.matmul_site import MatmulSite, site_of
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Choice, Option, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class JointSite:
    """Products of one input with several weights, ``y_i = W_i x``, seen as one stacked weight.

    Parameters
    ----------
    parts
        The weights, each used once, on the right.
    """

    parts: tuple[MatmulSite, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the weights."""
        return tuple(part.weight.name or "" for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): output features of all weights together, and input features."""
        return sum(part.shape[0] for part in self.parts), self.parts[0].shape[1]

    @property
    def statistic(self) -> Statistic:
        """The moments of the input."""
        return Statistic((self.parts[0].uses[0].data.name or "",), -1)

    def fit(self, facts: Facts, most: int, *, centre: bool, unseen: float) -> Fit:
        """Find directions of all outputs together, each layer's energy counting alike.

        The input that all share gives the covariance between their outputs, which no moments of
        the outputs one by one could.
        """
        weights = [part.matrix(facts) for part in self.parts]
        moments = facts.statistic(self.statistic)
        centred = centre and all(part.uses[0].bias is not None for part in self.parts)
        moment = None
        if moments is not None:
            moment = moments.covariance if centred else moments.second_moment
        energies = [
            float(np.sum(w * w) if moment is None else np.sum((w @ moment) * w)) for w in weights
        ]
        scales = np.repeat(
            [1 / np.sqrt(energy) if energy > 0 else 1.0 for energy in energies],
            [len(w) for w in weights],
        )
        stacked = scales[:, None] * np.concatenate(weights)
        if moments is None or moment is None:
            return Fit(facts.workers.solve(from_weight, stacked, most), None, scales)
        share = unseen_share(unseen, moments.count / moments.mean.size)
        basis = facts.workers.solve(from_input_moment, stacked, moment, most, unseen=share)
        return Fit(basis, stacked @ moments.mean if centred else None, scales)

    def cost(
        self, facts: Facts, rank: int | None, seconds: Callable[[Cost], Cost], extra: int = 0
    ) -> Cost:
        """Count the products as they are, or with a first factor of a rank for all of them."""
        outputs, inputs = self.shape
        size = outputs * inputs if rank is None else rank * (outputs + inputs)
        made = facts.concrete(self.parts[0].uses[0].node.outputs[0])
        positions = int(np.prod(made[:-1], dtype=np.int64)) if made else 1
        itemsize = self.parts[0].tensor.dtype.itemsize
        nodes = len(self.parts) + (rank is not None)
        stored = size + extra
        cost = Cost(
            parameters=stored, bytes=int(stored * itemsize), macs=positions * size, nodes=nodes
        )
        return seconds(cost)

    def choice(
        self,
        facts: Facts,
        ranks: range,
        fit: Fit,
        seconds: Callable[[Cost], Cost],
    ) -> Choice:
        """Offer the ranks."""
        moments: Moments | None = facts.statistic(self.statistic)
        before = self.cost(facts, None, seconds)
        biases = sum(part.bias_parameters() for part in self.parts)
        extra = 0 if fit.mean is None else biases
        options = tuple(
            Option(
                f"joint rank {rank}",
                fit.basis.error(rank),
                before,
                self.cost(facts, rank, seconds, extra),
                partial(_patch, self.names, fit, rank),
                rank,
            )
            for rank in ranks
        )
        return Choice(
            frozenset(self.names),
            self.parts[0].uses[0].node.outputs[0].name or "",
            options,
            "weights" if moments is None else "calibration",
            0.0 if moments is None else moments.count / moments.mean.size,
            fit.basis.spectrum,
        )


def joint_sites(sites: Iterable[MatmulSite]) -> Iterator[JointSite]:
    """Yield the weights that multiply the same input from the right and nothing else."""
    readers: dict[object, list[MatmulSite]] = {}
    for site in sites:
        use = site.uses[0]
        if len(site.uses) == 1 and use.weight_index == 1 and use.data_axis == -1:
            readers.setdefault((use.data, site.tensor.dtype), []).append(site)
    for parts in readers.values():
        if len(parts) > 1:
            yield JointSite(tuple(parts))


def _patch(
    names: tuple[str, ...], fit: Fit, rank: int, scope: Scope, facts: Facts
) -> Patch | Refusal:
    parts: list[MatmulSite] = []
    for name in names:
        found = site_of(name, scope, facts)
        if isinstance(found, Refusal):
            return found
        parts.append(found)
    scales = np.ones(1) if fit.scales is None else fit.scales
    stacked = scales[:, None] * np.concatenate([part.matrix(facts) for part in parts])
    upper, lower = fit.basis.factors(stacked, rank)
    lost = None if fit.mean is None else (fit.mean - upper @ (upper.T @ fit.mean)) / scales
    upper = upper / scales[:, None]
    data = parts[0].uses[0].data
    thin = Fresh(f"{data.name}_thin")
    first = NewNode("MatMul", (data, constant(parts[0], "in", lower.T)), (thin,))
    edit = Edit(add=(first,))
    start = 0
    for part in parts:
        use, rows = part.uses[0], slice(start, start + part.shape[0])
        start = rows.stop
        bias = None if lost is None or use.bias is None else use.bias + use.scale * lost[rows]
        wide = wide_product(part, use, thin, constant(part, "out", upper[rows].T), bias)
        edit = Edit(
            remove=edit.remove + wide.remove,
            add=edit.add + wide.add,
            rewire={**edit.rewire, **wide.rewire},
        )
    added = reading_replacements(edit.add, edit.rewire)
    title = f"{' + '.join(names)}: joint rank {rank}"
    return Patch(
        title,
        parts[0].uses[0].node,
        {scope: Edit(remove=edit.remove, add=added, rewire=edit.rewire)},
    )
