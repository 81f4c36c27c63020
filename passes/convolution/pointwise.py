"""Operators that work on each spatial position by itself, and values known to be of one size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.passes.convolution.geometry import POOLS, integer, is_open, window

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

UNARY = frozenset(
    [
        "Abs",
        "Cast",
        "Ceil",
        "Celu",
        "Cos",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Tanh",
        "ThresholdedRelu",
    ]
)
BROADCASTING = frozenset(
    [
        "Add",
        "And",
        "Clip",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    ]
)
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
_SOFTMAX_BY_AXIS = 13  # before, it took all axes from `axis` on for one
_SPACE = 2  # batch and channels come before the spatial axes


class Pointwise:
    """Which operands of a node hold, position by position, what its output is made of.

    Parameters
    ----------
    scope
        The scope whose nodes are asked about.
    facts
        Facts about the model.
    """

    def __init__(self, scope: Scope, facts: Facts) -> None:
        self._scope, self._facts = scope, facts
        self._sizes: dict[ir.Value, Hashable] = {}
        self._operands: dict[ir.Node, tuple[int, ...] | None] = {}
        for node in scope.graph:
            self._operands[node] = self._find(node)
            if node.outputs:
                self._sizes[node.outputs[0]] = self._size_made(node)

    def operands(self, node: ir.Node) -> tuple[int, ...] | None:
        """Return the inputs that share the output's spatial positions one to one.

        The other inputs are the same at every position. None where the operator mixes
        positions, or where it is not certain that nothing is broadcast in space.
        """
        return self._operands.get(node)

    def knows(self, node: ir.Node) -> bool:
        """Whether the operator is one that works position by position, if nothing broadcasts."""
        return node.domain == "" and (node.op_type in UNARY or node.op_type in BROADCASTING)

    def _find(self, node: ir.Node) -> tuple[int, ...] | None:
        if node.domain != "" or len(node.outputs) != 1 or not node.inputs or is_open(node):
            return None
        kind, opset = node.op_type, self._facts.opset(self._scope) or 0
        if kind in UNARY or kind == "LRN":
            return (0,)
        if kind in BROADCASTING:
            return self._broadcast(node)
        rank = self._facts.rank(node.inputs[0])
        if rank is None or rank <= _SPACE:
            return None
        if kind == "Concat":
            inside = integer(node, "axis", 1) % rank < _SPACE
            return tuple(range(len(node.inputs))) if inside else None
        if kind in {"Softmax", "LogSoftmax"}:
            channels = opset >= _SOFTMAX_BY_AXIS and integer(node, "axis", -1) % rank == 1
            return (0,) if channels else None
        if kind == "BatchNormalization":
            usual = integer(node, "training_mode", 0) == 0 and integer(node, "spatial", 1) == 1
            return (0,) if usual else None
        if kind in _QUANTIZERS:
            of_scale = self._facts.rank(node.inputs[1])
            per_channel = of_scale == 1 and integer(node, "axis", 1) % rank == 1
            plain = integer(node, "block_size", 0) == 0
            return (0,) if plain and (of_scale == 0 or per_channel) else None
        return None

    def _broadcast(self, node: ir.Node) -> tuple[int, ...] | None:
        shapes = [self._facts.shape(value) for value in node.inputs]
        present = [s for s, value in zip(shapes, node.inputs, strict=True) if value is not None]
        if any(shape is None for shape in present):
            return None
        rank = max(len(shape) for shape in present if shape is not None)
        found: list[int] = []
        for index, (value, shape) in enumerate(zip(node.inputs, shapes, strict=True)):
            if value is None or shape is None or _is_flat(shape, rank):
                continue
            if len(shape) != rank:
                return None
            found.append(index)
        sizes = {self.size(node.inputs[index]) for index in found}
        return tuple(found) if len(sizes) == 1 and rank > _SPACE else None

    def size(self, value: ir.Value | None) -> Hashable:
        """Return a key: values with equal keys have equal spatial sizes in every run."""
        if value is None:
            return None
        if value not in self._sizes:
            self._sizes[value] = self._size_declared(value) or value
        return self._sizes[value]

    def _size_declared(self, value: ir.Value) -> Hashable | None:
        shape = self._facts.shape(value)
        return None if shape is None or None in shape[_SPACE:] else shape[_SPACE:]

    def _size_made(self, node: ir.Node) -> Hashable:
        output, operands = node.outputs[0], self._operands[node]
        declared = self._size_declared(output)
        if declared is not None:
            return declared
        if operands:
            return self.size(node.inputs[operands[0]])
        if node.domain == "" and (node.op_type == "Conv" or node.op_type in POOLS):
            slides = window(node, self._facts)
            if slides is not None:
                steady = set(slides.strides) == {1} and not slides.ceil
                reach = tuple(k - 1 for k in slides.span)
                source = self.size(node.inputs[0])
                return source if steady and reach == slides.padding else (source, slides)
        return output


def _is_flat(shape: Sequence[int | str | None], rank: int) -> bool:
    """Whether an operand is the same at every spatial position of an output of this rank."""
    return all(d == 1 for d in shape[len(shape) - min(len(shape), max(rank - _SPACE, 0)) :])
