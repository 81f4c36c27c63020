"""Gates: weights, bias and activation of one part of a cell, read off its form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.passes.recurrence.forms import Atom, Form

Function = tuple[object, ...]
_MATRIX = 2
# ONNX name per operator, and the defaults of alpha and beta where it has them.
_ACTIVATIONS: dict[str, tuple[float | None, float | None]] = {
    "Sigmoid": (None, None),
    "Tanh": (None, None),
    "Relu": (None, None),
    "Softsign": (None, None),
    "Softplus": (None, None),
    "LeakyRelu": (0.01, None),
    "ThresholdedRelu": (1.0, None),
    "Elu": (1.0, None),
    "HardSigmoid": (0.2, 0.5),
}


@dataclass(frozen=True)
class Activation:
    """An activation function of ONNX's recurrent operators."""

    name: str
    alpha: float | None = None
    beta: float | None = None


@dataclass
class Gate:
    """The argument of one gate's activation.

    Parameters
    ----------
    function
        The activation.
    inputs
        Weight [hidden, features] per input value of the slice.
    recurrent
        Weight [hidden, hidden] of the state.
    bias
        [hidden].
    peephole
        [hidden], of the cell state.
    """

    function: Function
    inputs: dict[ir.Value, np.ndarray]
    recurrent: np.ndarray
    bias: np.ndarray
    peephole: np.ndarray | None = None

    def negated(self) -> Gate:
        """Return the gate whose sigmoid is 1 minus this one's."""
        inputs = {value: -weight for value, weight in self.inputs.items()}
        return Gate(self.function, inputs, -self.recurrent, -self.bias)


@dataclass(frozen=True)
class States:
    """What the states become.

    Parameters
    ----------
    next
        State as read by the first slice to its form in the next step.
    inputs
        Input values that the slice's forms may read.
    """

    next: Mapping[ir.Value, Form]
    inputs: frozenset[ir.Value] = field(default_factory=frozenset)


def activation(function: Function) -> Activation | None:
    """Return the activation that a function is, in ONNX's terms; None for any other."""
    name = str(function[0]) if function else "Affine"
    if name == "Affine":
        return Activation("Affine", 1.0, 0.0)
    if name not in _ACTIVATIONS:
        return None
    given: dict[str, float] = dict(function[1:])  # type: ignore[arg-type]  # pairs of name and value
    if not set(given) <= {"alpha", "beta"}:
        return None
    alpha, beta = _ACTIVATIONS[name]
    return Activation(
        name,
        None if alpha is None else float(given.get("alpha", alpha)),
        None if beta is None else float(given.get("beta", beta)),
    )


def gate(
    states: States,
    function: Function,
    form: Form | None,
    hidden: ir.Value,
    cell_state: ir.Value | None = None,
) -> Gate | None:
    """Read a form as W x + R h + b (+ p c); None when it is anything else."""
    if form is None:
        return None
    width = form.width
    gate = Gate(function, {}, np.zeros((width, width)), np.zeros(width))
    for monomial, coefficient in form.terms.items():
        if not monomial:
            gate.bias = gate.bias + coefficient
            continue
        if len(monomial) > 1 or monomial[0].value is None:
            return None
        atom = monomial[0]
        if atom.value is cell_state and coefficient.ndim < _MATRIX and atom.width == width:
            gate.peephole = np.broadcast_to(coefficient, (width,))
        elif atom.value is hidden:
            gate.recurrent = _placed(gate.recurrent, atom, coefficient, width)
        elif atom.value in states.inputs:
            known = gate.inputs.get(atom.value, np.zeros((width, 0)))
            gate.inputs[atom.value] = _placed(known, atom, coefficient, width)
        else:
            return None
    return gate


def _placed(weight: np.ndarray, atom: Atom, coefficient: np.ndarray, width: int) -> np.ndarray:
    """Add a coefficient to the columns of a weight that its atom stands for."""
    if coefficient.ndim < _MATRIX:
        coefficient = np.diag(np.broadcast_to(coefficient, (width,)))
    stop = atom.start + atom.width
    if weight.shape[1] <= atom.width and not atom.start and not weight.any():
        return coefficient
    grown = np.zeros((width, max(weight.shape[1], stop)))
    grown[:, : weight.shape[1]] = weight
    grown[:, atom.start : stop] += coefficient
    return grown
