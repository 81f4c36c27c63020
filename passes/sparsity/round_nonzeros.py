"""round-nonzeros: what zeros leave of a weight is rounded to float16, or to 255 values.

What it does
    Offers each float32 weight that is to be encoded with its nonzeros as float16 numbers, and as
    the 255 values that are nearest to them by least squares. `encode-sparse` then stores two bytes
    or one for each instead of four.

Why
    With 30 % of the weights left, a bitmask takes 33 % of the dense bytes, 18 % with float16 and
    11 % with a table. The runtime computes in float32 as before, so no time is saved.

Leaves alone
    Weights that no bitmask or gaps make smaller, of other types, in subgraphs and functions; values
    that are not finite, or become so as float16. Where weights stay dense nothing is offered.

Exactness
    LOSSY. Proposed as choices; the planner takes what the error budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.codebook import codebook, rounded
from structopt_onnx.model.edit import Edit, Fresh
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.sparsity.encode_sparse import EncodeSparse
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.encodings import COLOURS
from structopt_onnx.rewriting.passes import Choice, Option, Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True)
class RoundNonzeros(Pass):
    """Options of round-nonzeros, which are those of the run.

    Parameters
    ----------
    sparse_format, target
        How weights will be encoded; see `EncodeSparse`.
    """

    name: ClassVar[str] = "round-nonzeros"
    exactness: ClassVar[Exactness] = Exactness.LOSSY
    counts_zeros: ClassVar[bool] = True
    canonical: ClassVar[bool] = True  # what it saves is seen once the weight is encoded
    refusals: ClassVar[dict[str, str]] = {
        "superseded": "an earlier rewrite of the plan took the weight",
    }

    sparse_format: str = "auto"
    target: str = "cpu"

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Choice]:
        """Yield a choice per weight that a decode graph will hold."""
        if not scope.is_main or self.sparse_format == "none":
            return
        encoder = EncodeSparse(self.sparse_format, self.target)
        for value in scope.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype is not ir.DataType.FLOAT:
                continue
            before = encoder.stored_bytes(scope, facts, value, tensor)
            if before is not None:
                stored = partial(encoder.stored_bytes, scope, facts, value)
                choice = _choice(value, tensor, before, stored)
                if choice is not None:
                    yield choice


def _choice(
    value: ir.Value,
    tensor: ir.TensorProtocol,
    before: int,
    stored: Callable[[ir.TensorProtocol], int | None],
) -> Choice | None:
    name, weight = value.name or "", tensor.numpy().astype(np.float64)
    if not np.isfinite(weight).all():
        return None
    energy = float(np.sum(weight**2))
    options = []
    for label, made in (("float16", _halves(weight)), ("255 values", _coloured(weight))):
        after = stored(ir.tensor(made))
        if np.isfinite(made).all() and after is not None and after < before:
            error = float(np.sum((made - weight) ** 2)) / energy
            build = _Rounded(name, tensor, made, label).patch
            costs = Cost(bytes=before), Cost(bytes=after)
            options.append(Option(label, error, *costs, build))
    if not options:
        return None
    reader = next(iter(value.uses())).node
    return Choice(frozenset({name}), reader.outputs[0].name or "", tuple(options), basis="weights")


def _halves(weight: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        # The sign of a zero would be stored.
        return weight.astype(np.float16).astype(np.float32) + np.float32(0)


def _coloured(weight: np.ndarray) -> np.ndarray:
    made = np.zeros(weight.shape)
    nonzero = weight != 0
    if nonzero.any():
        made[nonzero] = rounded(weight[nonzero], codebook(weight[nonzero], COLOURS))
    return made.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Rounded:
    name: str
    old: ir.TensorProtocol
    made: np.ndarray
    label: str

    def patch(self, scope: Scope, facts: Facts) -> Patch | Refusal:
        del facts
        value = scope.graph.initializers.get(self.name)
        now = None if value is None else value.const_value
        if value is None or now is None or not value.uses() or not _same(now, self.old):
            return Refusal("superseded", "it is not what was rounded", self.name)
        edit = Edit(rewire={value: Fresh(self.name, ir.tensor(self.made))})
        anchor = next(iter(value.uses())).node
        return Patch(f"{self.name}: nonzeros as {self.label}", anchor, {scope: edit})


def _same(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    return one.shape == other.shape and bool(np.array_equal(one.numpy(), other.numpy()))
