"""fold-affine: scales and offsets per channel after a convolution go into its weight and bias.

What it does
    Follows a convolution through Add, Sub, Mul and Div with stored constants of one number, or
    one number per channel, and folds the whole chain, computed in float64. Pools on the way stay
    where they are: what does not fall comes out of a maximum as it went in, and an average is
    linear. Behind a pool BatchNormalization counts, too.

Why
    Exporters write normalization out as arithmetic, three operators per layer. The library's rule
    takes single numbers only, and only behind a convolution that has a bias already.

Leaves alone
    Chains that somebody reads in the middle, constants that differ in space, divisions by the
    convolution, weights that are not stored, and results that are not finite. Behind a maximum,
    scales below zero; behind an average that counts padding, offsets.

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
from structopt_onnx.passes.convolution.geometry import counts_padding, integer, is_open
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Step = tuple["ir.Node", np.ndarray, np.ndarray]
_AFFINE = {"Add", "Sub", "Mul", "Div"}
_MAXIMA = {"MaxPool", "GlobalMaxPool"}
_POOLS = _MAXIMA | {"AveragePool", "GlobalAveragePool"}


@dataclass(frozen=True, eq=False)
class Chain:
    """A convolution and what is behind it, as ``scale * y + offset`` per channel and pools."""

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
        "no-way-through-pool": "a maximum scaled below zero, or an offset where padding counts",
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
        found = _followed(node, channels, rank, facts)
        return _foldable(found, facts) if isinstance(found, Chain) else found

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
        nodes = [NewNode("Conv", (source, kernel, offset), (made,), conv.attributes)]
        for pool in (node for node in match.nodes if node.op_type in _POOLS):
            last, made = made, Fresh(pool.outputs[0].name or "pooled")
            nodes.append(NewNode(pool.op_type, (last,), (made,), pool.attributes))
        edit = Edit((conv, *match.nodes), tuple(nodes), (), {result: made})
        kinds = ", ".join(node.op_type for node in match.nodes if node.op_type not in _POOLS)
        title = f"{kinds} folded into '{conv.name or conv.outputs[0].name}'"
        return Patch(title, conv, {scope: edit})


def _followed(conv: ir.Node, channels: int, rank: int, facts: Facts) -> Chain | Refusal | None:
    """Follow the chain behind a convolution as far as it can be folded."""
    value = conv.outputs[0]
    chain: list[ir.Node] = []
    pools: list[ir.Node] = []
    scale, offset = np.ones(channels), np.zeros(channels)
    while step := _step(value, channels, rank, facts, pooled=bool(pools)) or _pool(value):
        following, factor, summand = step
        code, detail = "", f"of '{following.name}'"
        if value.is_graph_output() or len(value.uses()) > 1:
            code, detail = "read-elsewhere", f"'{value.name}' is"
        elif not all(_lets_through(pool, factor, summand) for pool in pools):
            code = "no-way-through-pool"
        if code:
            first = following.op_type not in _POOLS and len(chain) == len(pools)
            if first:
                return Refusal(code, detail, conv.name or "")
            break
        if following.op_type in _POOLS:
            pools.append(following)
        with np.errstate(all="ignore"):  # what is not finite is refused in the end
            scale, offset = scale * factor, offset * factor + summand
        chain.append(following)
        value = following.outputs[0]
    while chain and chain[-1] in pools:
        chain.pop()
    return Chain(conv, tuple(chain), scale, offset) if chain else None


def _foldable(found: Chain, facts: Facts) -> Chain | Refusal:
    """Return a chain whose convolution can take it."""
    weight, *bias = found.conv.inputs[1:]
    name = found.conv.name or ""
    if bias and bias[0] is not None and facts.tensor(bias[0]) is None:
        return Refusal("bias-not-constant", f"'{bias[0].name}'", name)
    stored = weight is not None and weight.is_initializer() and facts.tensor(weight) is not None
    if not stored and np.any(found.scale != 1):
        return Refusal("weight-not-stored", "", name)
    return found


def _pool(value: ir.Value) -> Step | None:
    """Return a pool that reads a value; it scales nothing."""
    for use in value.uses():
        node = use.node
        known = node.domain == "" and node.op_type in _POOLS and node.graph is value.graph
        if known and not is_open(node) and len(node.outputs) == 1:
            return node, np.ones(()), np.zeros(())
    return None


def _lets_through(pool: ir.Node, factor: np.ndarray, summand: np.ndarray) -> bool:
    """Whether it is the same to scale and add before a pool as behind it."""
    if pool.op_type in _MAXIMA:
        return bool(np.all(factor >= 0))
    return not (counts_padding(pool) and np.any(summand))


def _step(value: ir.Value, channels: int, rank: int, facts: Facts, *, pooled: bool) -> Step | None:
    """Return an affine reader of a value with its factor and summand per channel."""
    for use in value.uses():
        node = use.node
        if pooled and (found := _normalization(node, facts)) is not None:
            return found
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


def _normalization(node: ir.Node, facts: Facts) -> Step | None:
    """Return BatchNormalization by stored statistics as a step."""
    if node.domain != "" or node.op_type != "BatchNormalization" or is_open(node):
        return None
    arrays = [facts.array(value) for value in node.inputs[1:]]
    trains = integer(node, "training_mode", 0) or not integer(node, "spatial", 1)
    if trains or len(node.outputs) > 1 or any(a is None for a in arrays):
        return None
    scale, offset, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    epsilon = node.attributes.get("epsilon")
    with np.errstate(all="ignore"):  # what is not finite is refused in the end
        factor = scale / np.sqrt(variance + (1e-5 if epsilon is None else epsilon.as_float()))
        return node, factor, offset - mean * factor


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
