"""Where a constant input weight of RNN, GRU and LSTM nodes meets their input sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.statistic import SequenceStatistic, Statistic
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

REFUSALS = {
    "weight-not-constant": "the caller can override the weight, or a node computes it",
    "weight-dtype": "the weight is not float16, float32 or float64",
    "weight-tied": "something reads the weight other than as the input weight of RNN, GRU or LSTM",
    "weight-is-output": "the weight is a graph output",
    "weight-not-finite": "the weight holds an infinity or a NaN",
    "inside-subgraph": "activations inside a subgraph or function can't be observed",
    "layout": "the node reads its sequence batch first",
}
# Positions of the inputs, the same for the three operators.
_X, _W, BIAS, _LENGTHS = 0, 1, 3, 4
_WEIGHT_RANK = 3
_FEATURES = 2
_OPERATORS = {"RNN", "GRU", "LSTM"}
_DTYPES = {ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE}


@dataclass(frozen=True, eq=False)
class Recurrence:
    """One node that reads the weight, ``W x`` at every step of its sequence.

    Parameters
    ----------
    node
        The RNN, GRU or LSTM.
    bias
        Its input B, float64 [D, 2 G H]: zeros when it has none, None when that is no constant.
    """

    node: ir.Node
    bias: npt.NDArray[np.float64] | None

    @property
    def data(self) -> ir.Value:
        """The sequence X, [steps, batch, I]."""
        data = self.node.inputs[_X]
        if data is None:  # a required input
            raise ValueError(self.node.name)
        return data

    @property
    def bias_value(self) -> ir.Value | None:
        """The input B."""
        return _input(self.node, BIAS)

    @property
    def statistic(self) -> Statistic:
        """The moments of X over the steps that count."""
        name = self.data.name or ""
        lengths = _input(self.node, _LENGTHS)
        # A session hands out what nodes make and is given the inputs: constants and defaults
        # that the samples may leave out can't be looked at.
        if lengths is None or lengths.is_initializer():
            return Statistic((name,), _FEATURES)
        return SequenceStatistic((name,), _FEATURES, lengths.name or "")


@dataclass(frozen=True, eq=False)
class RecurrentSite:
    """An input weight and every node that reads it.

    Parameters
    ----------
    weight
        The initializer W, stored [D, G H, I]: directions, gates times hidden size, features.
    uses
        The nodes, in graph order.
    """

    weight: ir.Value
    uses: tuple[Recurrence, ...]

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The weight as stored."""
        tensor = self.weight.const_value
        if tensor is None:  # matched on a constant
            raise ValueError(self.weight.name)
        return tensor

    @property
    def stored_shape(self) -> tuple[int, int, int]:
        """(D, G H, I)."""
        directions, gates, features = (int(d) for d in self.tensor.shape.numpy())
        return directions, gates, features

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n) of the stacked matrix: D G H rows, I columns."""
        directions, gates, features = self.stored_shape
        return directions * gates, features

    def matrix(self) -> npt.NDArray[np.float64]:
        """Return W of all directions on top of each other, float64 [m, n]: they share X."""
        return np.asarray(self.tensor.numpy(), np.float64).reshape(self.shape)

    def bias_parameters(self) -> int | None:
        """Return how many parameters a constant added to ``W x`` brings; None when it can't be."""
        nodes = {use.node for use in self.uses}
        added, seen = 0, set()
        for use in self.uses:
            if use.bias is None:
                return None
            value = use.bias_value
            if value in seen:
                continue
            seen.add(value)
            stays = value is None or value.is_graph_output() or value.is_graph_input()
            if value is not None:
                stays |= any(reader.node not in nodes for reader in value.uses())
            added += use.bias.size if stays else 0
        return added


def find_weights(scope: Scope, facts: Facts) -> Iterator[RecurrentSite | Refusal]:
    """Yield each input weight of a scope's RNN, GRU and LSTM nodes, or why it must stay."""
    seen: set[ir.Value] = set()
    for node in scope.graph:
        if node.domain != "" or node.op_type not in _OPERATORS:
            continue
        weight = node.inputs[_W]
        if weight is None or weight in seen:
            continue
        seen.add(weight)
        found = _site(weight, scope, facts)
        if found is not None:
            yield found


def site_of(name: str, scope: Scope, facts: Facts) -> RecurrentSite | Refusal:
    """Find a weight's site again by name; code ``superseded`` when it is gone."""
    weight = scope.graph.initializers.get(name)
    found = None if weight is None else _site(weight, scope, facts)
    return found or Refusal("superseded", "an earlier rewrite took it", name)


def _site(weight: ir.Value, scope: Scope, facts: Facts) -> RecurrentSite | Refusal | None:
    name = weight.name or ""
    unfit = _unfit(weight, scope, facts)
    if unfit is not None:
        return Refusal(*unfit, name)
    if len(facts.dims(weight) or ()) != _WEIGHT_RANK:
        return None
    uses: list[Recurrence] = []
    for node, index in weight.uses():
        if node.graph is not scope.graph:
            return Refusal("inside-subgraph", f"node '{node.name}' reads it", name)
        if node.domain != "" or node.op_type not in _OPERATORS or index != _W:
            return Refusal("weight-tied", f"{node.op_type} '{node.name}' reads it", name)
        layout = node.attributes.get("layout")
        if layout is not None and layout.as_int() != 0:
            return Refusal("layout", f"{node.op_type} '{node.name}'", name)
        uses.append(Recurrence(node, _bias(node, weight, facts)))
    order = {node: position for position, node in enumerate(scope.graph)}
    uses.sort(key=lambda use: order[use.node])
    return RecurrentSite(weight, tuple(uses))


def _unfit(weight: ir.Value, scope: Scope, facts: Facts) -> tuple[str, str] | None:
    if not scope.is_main:
        return "inside-subgraph", scope.path
    tensor = weight.const_value
    if not weight.is_initializer() or tensor is None:
        return "weight-not-constant", "a node computes it"
    if facts.tensor(weight) is None:
        return "weight-not-constant", "it is a graph input as well"
    if weight.is_graph_output():
        return "weight-is-output", "it is a graph output as well"
    if tensor.dtype not in _DTYPES:
        return "weight-dtype", tensor.dtype.name
    if not np.isfinite(tensor.numpy()).all():
        return "weight-not-finite", "what it makes has no directions"
    return None


def _bias(node: ir.Node, weight: ir.Value, facts: Facts) -> npt.NDArray[np.float64] | None:
    value = _input(node, BIAS)
    if value is not None:
        constant = facts.array(value)
        return None if constant is None else np.asarray(constant, np.float64)
    directions, gates, _ = facts.dims(weight) or (0, 0, 0)
    return np.zeros((directions or 0, 2 * (gates or 0)))


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None
