"""Activation functions of recurrent operators: how nodes name them, and as nodes of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.model.edit import Fresh, Operand
    from structopt_onnx.passes.recurrence.subgraph import Subgraph

_DEFAULTS = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
# Operators of the same name, with the attributes that they take and their defaults.
# onnxruntime's default threshold is not the specification's, so that one must be given.
_OPERATORS: dict[str, dict[str, float | None]] = {
    "Relu": {},
    "Tanh": {},
    "Sigmoid": {},
    "Softsign": {},
    "Softplus": {},
    "LeakyRelu": {"alpha": 0.01},
    "ThresholdedRelu": {"alpha": None},
    "Elu": {"alpha": 1.0},
    "HardSigmoid": {"alpha": 0.2, "beta": 0.5},
}
# Not operators; the specification gives no defaults for their constants.
_COMPOSED = {"Affine", "ScaledTanh"}
# ThresholdedRelu is an operator from this opset on; the others were there before Gemm broadcast.
_THRESHOLDED_SINCE = 10
_NAMES = {name.lower(): name for name in (*_OPERATORS, *_COMPOSED)}


@dataclass(frozen=True)
class Activation:
    """One function of the list that the operators' specification gives.

    Parameters
    ----------
    name
        As specified, whatever the case it was written in.
    constants
        ``alpha`` and ``beta`` where the function has them.
    """

    name: str
    constants: tuple[tuple[str, float], ...] = ()

    def apply(self, graph: Subgraph, x: Operand, name: str) -> Fresh:
        """Add the function's nodes to a graph and return the result."""
        constants = dict(self.constants)
        if self.name in _OPERATORS:
            return graph.add(self.name, x, name=name, **constants)
        alpha = graph.scalar(constants["alpha"])
        beta = graph.scalar(constants["beta"])
        if self.name == "Affine":
            return graph.add("Add", graph.add("Mul", x, alpha, name=name), beta, name=name)
        scaled = graph.add("Mul", x, beta, name=name)
        return graph.add("Mul", graph.add("Tanh", scaled, name=name), alpha, name=name)


def read_activations(
    node: ir.Node, directions: int, opset: int
) -> tuple[tuple[Activation, ...], ...] | None:
    """Return the functions of each direction.

    The values of ``activation_alpha`` and ``activation_beta`` go to the functions that take them,
    in order; a function that they do not reach has its operator's defaults.

    Parameters
    ----------
    node
        An RNN, GRU or LSTM.
    directions
        How many it has.
    opset
        Version of the default domain, which must have a function's operator.

    Returns
    -------
    tuple or None
        None for a name that is not specified or no operator yet, a constant that is missing, or
        a wrong number of functions.
    """
    attribute = node.attributes.get("activations")
    default = _DEFAULTS[node.op_type]
    names = default * directions if attribute is None else tuple(attribute.as_strings())
    if len(names) != len(default) * directions:
        return None
    given = {
        key: list(found.as_floats()) if found is not None else []
        for key in ("alpha", "beta")
        for found in [node.attributes.get(f"activation_{key}")]
    }
    read = []
    for written in names:
        name = _NAMES.get(written.lower(), "")
        wanted = _OPERATORS.get(name, {"alpha": None, "beta": None} if name in _COMPOSED else None)
        if wanted is None or (name == "ThresholdedRelu" and opset < _THRESHOLDED_SINCE):
            return None
        constants = {key: given[key].pop(0) if given[key] else d for key, d in wanted.items()}
        found = tuple((key, value) for key, value in constants.items() if value is not None)
        if len(found) < len(wanted):
            return None
        read.append(Activation(name, found))
    each = len(default)
    return tuple(tuple(read[each * d : each * (d + 1)]) for d in range(directions))
