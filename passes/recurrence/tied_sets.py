"""Edits that let recurrent nodes share one set of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.patch import Patch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.recurrence.weight_sets import Vector, WeightSet


def tied_layers(groups: Sequence[Sequence[WeightSet]], scope: Scope) -> Patch:
    """Describe that the layers of each group read the mean of their weights."""
    rewire: dict[ir.Value, ir.Value | Fresh] = {}
    for group in groups:
        for values, arrays in zip(
            zip(*(held.values for held in group), strict=True),
            zip(*(held.arrays() for held in group), strict=True),
            strict=True,
        ):
            mean = _constant(values[0], np.mean(arrays, axis=0))
            rewire |= dict.fromkeys(values, mean)
    titles = (" and ".join(held.name for held in group) for group in groups)
    title = f"one set of weights for {'; for '.join(titles)}"
    return Patch(title, groups[0][0].node, {scope: Edit(rewire=rewire)})


def tied_directions(held: WeightSet, scope: Scope) -> Patch:
    """Describe that both directions of a layer read the mean of their weights."""
    added: list[NewNode] = []
    rewire: dict[ir.Value, ir.Value | Fresh] = {}
    for value, array in zip(held.values, held.arrays(), strict=True):
        mean = _constant(value, array.mean(axis=0, keepdims=True))
        both = Fresh(f"{value.name}_both")
        added.append(NewNode("Concat", (mean, mean), (both,), {"axis": 0}))
        rewire[value] = both
    edit = Edit(add=tuple(added), rewire=rewire)
    return Patch(f"one set of weights for both directions of {held.name}", held.node, {scope: edit})


def _constant(value: ir.Value, array: Vector) -> Fresh:
    dtype = ir.DataType.FLOAT if value.dtype is None else value.dtype
    return Fresh(f"{value.name}_tied", ir.tensor(np.ascontiguousarray(array, dtype.numpy())))
