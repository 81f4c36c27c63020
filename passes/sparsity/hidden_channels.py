"""Channels between two products that only operators on each channel by itself touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.sparsity.pruning_fit import FloatArray

_PRODUCTS = {"Conv", "Gemm", "MatMul"}
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"}
    | {"Identity", "LeakyRelu", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid"}
    | {"Softplus", "Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu"}
)
_NORMALIZATION = "BatchNormalization"
# Each channel of an image for itself; the channels are axis 1.
_BY_CHANNEL = frozenset({"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"}) | {
    _NORMALIZATION
}


@dataclass(frozen=True, eq=False)
class HiddenChannels:
    """What one product makes and one other reads.

    Parameters
    ----------
    maker, reader
        The products.
    between
        The nodes on the way, in order.
    sliced
        Constants on the way with one number per channel, and the axis they have it along.
    """

    maker: LastFactor
    reader: LastFactor
    between: tuple[ir.Node, ...]
    sliced: Mapping[ir.Value, int]

    @property
    def count(self) -> int:
        """How many channels there are."""
        return len(self.maker.factor())

    @property
    def taps(self) -> int:
        """How many numbers of each channel the reader multiplies at once."""
        return int(self.reader.factor().shape[1]) // self.count

    def cut(
        self, scope: Scope, kept: npt.NDArray[np.intp], factor: FloatArray, bias: FloatArray
    ) -> Patch:
        """Describe the edit that leaves channels out.

        Parameters
        ----------
        scope
            Where they are.
        kept
            Numbers of those that stay, ascending.
        factor, bias
            What the reader does with them, float64 [m, kept * taps] and [m].
        """
        made: dict[ir.Value, Operand] = {}
        for value, axis in {**self.sliced, self.maker.weight: self._rows}.items():
            array = np.take(_array(value), kept, axis)
            made[value] = Fresh(f"{value.name}_kept", ir.tensor(np.ascontiguousarray(array)))
        weight = self.reader.weight
        made[weight] = Fresh(f"{weight.name}_kept", ir.tensor(self._columns(factor, len(kept))))
        nodes = (self.maker.node, *self.between, self.reader.node)
        added = []
        for node in nodes:
            outputs = tuple(Fresh(output.name or "kept") for output in node.outputs)
            inputs = tuple(None if v is None else made.get(v, v) for v in node.inputs)
            added.append(NewNode(node.op_type, inputs, outputs, dict(node.attributes)))
            made.update(zip(node.outputs, outputs, strict=True))
        output, addend = self.reader.node.outputs[0], self.reader.addend
        replaced = made[output]
        if not isinstance(replaced, Fresh):
            raise TypeError(output.name)
        data = {} if addend is None else {addend: ir.tensor(self.reader.stored_bias(bias))}
        edit = Edit(nodes, tuple(added), rewire={output: replaced}, replace_data=data)
        title = f"{self.maker.weight.name}, {weight.name}: {len(kept)} of {self.count} channels"
        return Patch(title, self.reader.node, {scope: edit})

    @property
    def _rows(self) -> int:
        """The axis of the maker's weight that the channels lie along."""
        return 1 if self.maker.turned else 0

    def _columns(self, factor: FloatArray, kept: int) -> npt.NDArray[Any]:
        stored = _array(self.reader.weight)
        matrix = factor / self.reader.alpha
        shape = list(stored.shape)
        shape[0 if self.reader.turned else 1] = kept
        shaped = (matrix.T if self.reader.turned else matrix).reshape(shape)
        return np.ascontiguousarray(shaped, stored.dtype)


def hidden_before(reader: LastFactor, scope: Scope, facts: Facts) -> HiddenChannels | None:
    """Find the channels that a product reads, if another product makes them for it alone."""
    first, second = reader.node.inputs[:2]
    data = second if reader.weight is first else first
    maker = None if data is None else _maker(data, scope, facts)
    if data is None or maker is None:
        return None
    start, rank = maker.node.outputs[0], facts.rank(data)
    if rank is None or facts.rank(start) != rank:
        return None
    axis, read = (a if a < 0 else a - rank for a in (maker.made.axis, reader.read.axis))
    count = maker.factor().shape[0]
    if axis != read or reader.factor().shape[1] % count:
        return None
    way = _Way(axis, rank, count, facts)
    between = way.nodes(start, data, reader.node, scope)
    sliced = None if between is None else way.sliced(start, between)
    if between is None or sliced is None:
        return None
    return HiddenChannels(maker, reader, between, {**_own_bias(maker, axis), **sliced})


@dataclass(frozen=True)
class _Way:
    """What lies between two products: channels along an axis from the end, of values of a rank."""

    axis: int
    rank: int
    count: int
    facts: Facts

    def nodes(
        self, start: ir.Value, end: ir.Value, reader: ir.Node, scope: Scope
    ) -> tuple[ir.Node, ...] | None:
        """Return what reads the channels but the reader, None where that can't be cut."""
        found, waiting = dict[ir.Node, None](), [start]
        while waiting:
            current = waiting.pop()
            if current.is_graph_output():
                return None
            for node in dict.fromkeys(use.node for use in current.uses()):
                if node is reader or node in found:
                    continue
                if node.graph is not scope.graph or not self._is_by_channel(node):
                    return None
                found[node] = None
                waiting.append(node.outputs[0])
        if end is not start and end.producer() not in found:
            return None
        order = {node: position for position, node in enumerate(scope.graph)}
        return tuple(sorted(found, key=order.__getitem__))

    def sliced(self, start: ir.Value, nodes: Sequence[ir.Node]) -> dict[ir.Value, int] | None:
        """Return the constants on the way to cut, and along which axis; None for no constant."""
        carried = {start, *(node.outputs[0] for node in nodes)}
        found: dict[ir.Value, int] = {}
        for user, value in ((n, v) for n in nodes for v in n.inputs):
            if value is None or value in carried:
                continue
            tensor = self.facts.tensor(value)
            if tensor is None or not value.is_initializer() or len(tensor.shape) > self.rank:
                return None
            place = 0 if user.op_type == _NORMALIZATION else len(tensor.shape) + self.axis
            size = int(tensor.shape.numpy()[place]) if place >= 0 else 1
            if size not in {1, self.count}:
                return None
            if size > 1:
                found[value] = place
        return found

    def _is_by_channel(self, node: ir.Node) -> bool:
        if node.domain != "" or len([o for o in node.outputs if o.name]) != 1:
            return False
        if node.op_type in _BY_CHANNEL:
            return self.axis + self.rank == 1
        return node.op_type in _ELEMENTWISE and self.facts.rank(node.outputs[0]) == self.rank


def _maker(value: ir.Value, scope: Scope, facts: Facts) -> LastFactor | None:
    """Go back along first operands that are no constants to the first product."""
    node = value.producer()
    while node is not None and node.op_type in (_ELEMENTWISE | _BY_CHANNEL) and node.domain == "":
        data = next((i for i in node.inputs if i is not None and facts.tensor(i) is None), None)
        node = None if data is None else data.producer()
    if node is None or node.op_type not in _PRODUCTS or node.domain != "":
        return None
    for weight in node.inputs[:2]:
        if weight is not None and weight.is_initializer():
            found = last_factor(weight.name or "", scope, facts)
            if isinstance(found, LastFactor):
                return found
    return None


def _own_bias(maker: LastFactor, axis: int) -> dict[ir.Value, int]:
    bias = maker.node.inputs[2] if len(maker.node.inputs) > 2 else None  # noqa: PLR2004 - X, W, B
    if bias is None or bias.const_value is None or bias.const_value.size == 1:
        return {}
    return {bias: 0 if maker.node.op_type == "Conv" else len(bias.const_value.shape) + axis}


def _array(value: ir.Value) -> npt.NDArray[Any]:
    if value.const_value is None:  # found as a constant
        raise ValueError(value.name)
    return value.const_value.numpy()
