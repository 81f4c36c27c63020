"""fold-affine: scales and offsets per channel after a convolution go into its weight and bias.

What it does
    Follows a convolution through Add, Sub, Mul and Div with stored constants of one number, or
    one number per channel, and folds the whole chain, computed in float64.

Why
    Exporters write normalization out as arithmetic, three operators per layer. The library's rule
    takes single numbers only, and only behind a convolution that has a bias already.

Leaves alone
    Chains that somebody reads in the middle, constants that differ in space, divisions by the
    convolution, weights that are not stored, and results that are not finite.

Exactness
    ROUNDING: products with the scales are rounded once instead of at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.narrowing import narrowed
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_AFFINE = {"Add", "Sub", "Mul", "Div"}
_BIASED = 3  # inputs of a convolution with a bias


@dataclass(frozen=True, eq=False)
class Chain:
    """A convolution and the affine operators behind it, as ``scale * y + offset`` per channel."""

    conv: ir.Node
    nodes: tuple[ir.Node, ...]
    scale: np.ndarray
    offset: np.ndarray


@dataclass(frozen=True)
class FoldAffine(NodePass[Chain]):
    """Has no options."""

    name: ClassVar[str] = "fold-affine"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Conv"})
    refusals: ClassVar[dict[str, str]] = {
        "bias-not-constant": "the convolution's bias may change from run to run",
        "not-finite": "the type can't hold the folded weight or bias",
        "read-elsewhere": "the convolution's result is read elsewhere, or a graph output",
        "weight-not-stored": "the weight to be scaled is computed or can be overridden",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Chain | Refusal | None:
        """Follow the chain behind a convolution."""
        del scope
        dims, rank = facts.dims(node.inputs[1]), facts.rank(node.inputs[1])
        channels = None if dims is None else dims[0]
        if channels is None or rank is None:
            return None
        value, name = node.outputs[0], node.name or ""
        chain: list[ir.Node] = []
        scale, offset = np.ones(channels), np.zeros(channels)
        while step := _step(value, channels, rank, facts):
            following, factor, summand = step
            if value.is_graph_output() or len(value.uses()) > 1:
                if not chain:
                    return Refusal("read-elsewhere", f"'{value.name}' is", name)
                break
            with np.errstate(all="ignore"):  # what is not finite is refused in the end
                scale, offset = scale * factor, offset * factor + summand
            chain.append(following)
            value = following.outputs[0]
        if not chain:
            return None
        bias = node.inputs[2] if len(node.inputs) == _BIASED else None
        if bias is not None and facts.tensor(bias) is None:
            return Refusal("bias-not-constant", f"'{bias.name}'", name)
        weight = node.inputs[1]
        stored = weight is not None and weight.is_initializer() and facts.tensor(weight) is not None
        if not stored and np.any(scale != 1):
            return Refusal("weight-not-stored", "", name)
        return Chain(node, tuple(chain), scale, offset)

    def rewrite(self, scope: Scope, facts: Facts, match: Chain) -> Patch | Refusal:
        """Describe the folded convolution."""
        conv, result = match.conv, match.nodes[-1].outputs[0]
        source, weight, *rest = conv.inputs
        present = facts.array(rest[0]) if rest and rest[0] is not None else None
        was = np.zeros_like(match.scale) if present is None else present.astype(np.float64)
        dtype = facts.dtype(result) or ir.DataType.FLOAT
        with np.errstate(all="ignore"):  # what is not finite is refused
            bias = narrowed(was * match.scale + match.offset, dtype.numpy())
        kernel: ir.Value | Fresh | None = weight
        if np.any(match.scale != 1) and weight is not None:
            array = np.asarray(facts.array(weight))
            factors = match.scale.reshape(-1, *[1] * (array.ndim - 1))
            with np.errstate(all="ignore"):
                scaled = narrowed(array.astype(np.float64) * factors, array.dtype)
            kernel = None if scaled is None else Fresh(f"{weight.name}_scaled", ir.tensor(scaled))
        if bias is None or kernel is None:
            return Refusal("not-finite", f"behind '{conv.outputs[0].name}'", conv.name or "")
        made = Fresh(result.name or "folded")
        offset = Fresh(f"{result.name}_bias", ir.tensor(bias))
        node = NewNode("Conv", (source, kernel, offset), (made,), conv.attributes)
        edit = Edit((conv, *match.nodes), (node,), (), {result: made})
        kinds = ", ".join(node.op_type for node in match.nodes)
        title = f"{kinds} folded into '{conv.name or conv.outputs[0].name}'"
        return Patch(title, conv, {scope: edit})


def _step(
    value: ir.Value, channels: int, rank: int, facts: Facts
) -> tuple[ir.Node, np.ndarray, np.ndarray] | None:
    """Return an affine reader of a value with its factor and summand per channel."""
    for use in value.uses():
        node = use.node
        if node.domain != "" or node.op_type not in _AFFINE or node.graph is not value.graph:
            continue
        constant = _per_channel(node.inputs[1 - use.idx], channels, rank, facts)
        if constant is None:
            continue
        one, zero = np.ones(channels), np.zeros(channels)
        if node.op_type == "Add":
            return node, one, constant
        if node.op_type == "Mul":
            return node, constant, zero
        if node.op_type == "Sub":
            return (node, one, -constant) if use.idx == 0 else (node, -one, constant)
        if use.idx == 0:
            with np.errstate(divide="ignore"):
                return node, 1 / constant, zero
    return None


def _per_channel(
    value: ir.Value | None, channels: int, rank: int, facts: Facts
) -> np.ndarray | None:
    """Return a stored constant with one number per channel; None where it is something else."""
    array = facts.array(value)
    if value is None or array is None or array.ndim > rank or array.dtype.kind not in "fV":
        return None
    whole = array.reshape((1,) * (rank - array.ndim) + array.shape)
    if any(d != 1 for axis, d in enumerate(whole.shape) if axis != 1):
        return None
    if whole.shape[1] not in {1, channels}:
        return None
    flat: np.ndarray = whole.reshape(-1).astype(np.float64)
    return np.broadcast_to(flat, (channels,))
