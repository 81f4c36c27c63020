"""The inputs and attributes of ONNX's operator for a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.passes.recurrence.plumbing import Plumbing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from structopt_onnx.model.edit import AttributeValue, Fresh
    from structopt_onnx.passes.recurrence.cells import Cell
    from structopt_onnx.passes.recurrence.dims import Dim


def inputs(cell: Cell) -> tuple[ir.Value, ...]:
    """Return the values that the cell's input weights apply to."""
    return tuple(dict.fromkeys(v for gate in cell.gates for v in gate.inputs))


def weights(
    cell: Cell, dims: Callable[[ir.Value], Sequence[Dim] | None]
) -> tuple[Fresh, Fresh, Fresh]:
    """Return W, R and B of one direction.

    Parameters
    ----------
    cell
        The cell.
    dims
        Gives the dimensions of its inputs; the last one is known.
    """
    values = inputs(cell)
    last = {value: (dims(value) or (None,))[-1] for value in values}
    widths = {value: size for value, size in last.items() if isinstance(size, int)}
    rows = []
    for gate in cell.gates:
        row = np.zeros((cell.width, sum(widths.values())))
        at = 0
        for value in values:
            weight = gate.inputs.get(value, np.zeros((cell.width, 0)))
            row[:, at : at + weight.shape[1]] = weight
            at += widths[value]
        rows.append(row)
    inner = [np.zeros(cell.width) for _ in cell.gates]
    if cell.recurrent_bias is not None:
        inner[-1] = cell.recurrent_bias
    biases = [gate.bias for gate in cell.gates] + inner
    return (
        _weight(np.concatenate(rows), "W"),
        _weight(np.concatenate([gate.recurrent for gate in cell.gates]), "R"),
        _weight(np.concatenate(biases), "B"),
    )


def peepholes(cell: Cell) -> Fresh | None:
    """Return P of an LSTM, or None where it has none."""
    i, o, f, _ = cell.gates
    if i.peephole is None and o.peephole is None and f.peephole is None:
        return None
    none = np.zeros(cell.width)
    parts = [none if gate.peephole is None else gate.peephole for gate in (i, o, f)]
    return _weight(np.concatenate(parts), "P")


def attributes(cell: Cell, *, backwards: bool) -> dict[str, AttributeValue]:
    """Return the attributes of the operator."""
    attributes: dict[str, AttributeValue] = {"hidden_size": cell.width}
    if backwards:
        attributes["direction"] = "reverse"
    if cell.op_type == "GRU" and cell.recurrent_bias is not None:
        attributes["linear_before_reset"] = 1
    names = tuple(a.name for a in cell.activations)
    if names != {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh")}.get(
        cell.op_type, ("Sigmoid", "Tanh", "Tanh")
    ):
        attributes["activations"] = ir.AttrStrings("activations", names)
    for which in ("alpha", "beta"):
        found = [getattr(a, which) for a in cell.activations]
        if any(number is not None for number in found):
            attributes[f"activation_{which}"] = tuple(n for n in found if n is not None)
    return attributes


def _weight(array: np.ndarray, wish: str) -> Fresh:
    return Plumbing.constant(array[None].astype(np.float32), wish)
