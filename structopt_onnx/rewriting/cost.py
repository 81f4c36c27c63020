"""What a graph costs: parameters, bytes, multiply-accumulates, nodes and predicted seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from structopt_onnx.model.scope import scopes
from structopt_onnx.rewriting.encodings import encoded_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from structopt_onnx.model.facts import Facts

Objective = Literal["time", "bytes", "macs", "parameters"]
Dims = tuple[int, ...]
_CONVOLUTIONS = frozenset({"Conv", "ConvInteger", "QLinearConv"})
_MATRIX_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_WITH_PRODUCTS = _CONVOLUTIONS | _MATRIX_PRODUCTS | _RECURRENT | {"ConvTranspose", "Gemm"}


@dataclass(frozen=True)
class Cost:
    """Cost of some nodes and weights.

    Parameters
    ----------
    parameters
        Elements of floating-point initializers.
    bytes
        Bytes of all initializers.
    macs
        Multiply-accumulate operations of one run.
    nodes
        Operators.
    seconds
        Predicted time of one run on the target; None where nothing can be said.
    """

    parameters: int = 0
    bytes: int = 0
    macs: int = 0
    nodes: int = 0
    seconds: float | None = None

    def __add__(self, other: Cost) -> Cost:
        seconds = (
            None
            if self.seconds is None and other.seconds is None
            else (self.seconds or 0.0) + (other.seconds or 0.0)
        )
        return Cost(
            self.parameters + other.parameters,
            self.bytes + other.bytes,
            self.macs + other.macs,
            self.nodes + other.nodes,
            seconds,
        )

    def of(self, objective: Objective) -> float:
        """Return the figure that an objective minimizes."""
        if objective == "time":
            return self.macs if self.seconds is None else self.seconds
        return {"bytes": self.bytes, "macs": self.macs, "parameters": self.parameters}[objective]


def node_macs(
    op_type: str,
    attributes: Mapping[str, ir.Attr],
    inputs: Sequence[Dims | None],
    outputs: Sequence[Dims | None],
) -> int:
    """Count the multiply-accumulates of one node; 0 for operators without weights' products.

    Parameters
    ----------
    op_type
        Operator of the default domain.
    attributes
        Its attributes.
    inputs, outputs
        Concrete shapes; None where unknown, which makes the count 0.
    """
    if len(inputs) < 2 or inputs[0] is None or inputs[1] is None or not outputs:  # noqa: PLR2004
        return 0
    # The quantized forms interleave scales and zero points with the operands.
    weight = 3 if op_type in {"QLinearConv", "QLinearMatMul"} and len(inputs) > 3 else 1  # noqa: PLR2004
    x, w = inputs[0], inputs[weight]
    y = outputs[0]
    if w is None:
        return 0
    if op_type in _RECURRENT and len(x) == 3 and len(w) == 3:  # noqa: PLR2004
        directions, gates, features = w
        recurrent = inputs[2] if len(inputs) > 2 else None  # noqa: PLR2004
        hidden = recurrent[2] if recurrent is not None else 0
        return x[0] * x[1] * directions * gates * (features + hidden)
    if op_type == "ConvTranspose":
        return math.prod(x) * math.prod(w[1:])
    if y is None:
        return 0
    if op_type in _CONVOLUTIONS:
        return math.prod(y) * math.prod(w[1:])
    if op_type == "Gemm":
        transposed = "transA" in attributes and bool(attributes["transA"].as_int())
        return math.prod(y) * x[0 if transposed else 1]
    if op_type in _MATRIX_PRODUCTS and x:
        return math.prod(y) * x[-1]
    return 0


def weight_cost(weights: Iterable[ir.TensorProtocol], *, encoded: bool = False) -> Cost:
    """Return parameters and bytes of distinct tensors, those with zeros as if encoded or dense."""
    total = Cost()
    for tensor in weights:
        floating = tensor.dtype.is_floating_point()
        stored = encoded_bytes(tensor) if encoded and floating else tensor.nbytes
        total += Cost(parameters=tensor.size if floating else 0, bytes=stored)
    return total


def spared(weights: Iterable[ir.TensorProtocol]) -> Cost:
    """Return the bytes, not positive, by which tensors take less encoded than dense."""
    known = list(weights)
    return Cost(bytes=weight_cost(known, encoded=True).bytes - weight_cost(known).bytes)


def graph_cost(model: ir.Model, facts: Facts, *, encoded: bool = False) -> Cost:
    """Return the static cost of a whole model, subgraphs and functions included.

    A subgraph's operations are counted once, a function's body once, whatever the number of
    iterations or calls. Initializers count as they are, or as what `encoded_bytes` expects.
    """
    total = Cost()
    for scope in scopes(model):
        weights = (v.const_value for v in scope.graph.initializers.values())
        total += weight_cost((w for w in weights if w is not None), encoded=encoded)
        for node in scope.graph:
            total += node_cost(node, facts)
    return total


def node_cost(node: ir.Node, facts: Facts) -> Cost:
    """Return the cost of one node, without its inputs' weights and its subgraphs."""
    cost = Cost(nodes=1)
    if node.domain != "":
        return cost
    if node.op_type == "Constant":
        tensors = [a for a in node.attributes.values() if a.type == ir.AttributeType.TENSOR]
        # `value` and not `as_tensor()`, whose protocol check takes longer than all else here.
        return cost + weight_cost(a.value for a in tensors if not a.is_ref())
    if node.op_type not in _WITH_PRODUCTS:
        return cost
    macs = node_macs(
        node.op_type,
        node.attributes,
        [facts.concrete(value) for value in node.inputs],
        [facts.concrete(value) for value in node.outputs],
    )
    return cost + Cost(macs=macs)
