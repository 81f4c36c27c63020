"""A thin projection before RNN, GRU and LSTM nodes: the edit behind factor-recurrent-input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand, reading_replacements
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.low_rank.recurrent_site import BIAS

if TYPE_CHECKING:
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.low_rank.recurrent_fit import Fit
    from structopt_onnx.passes.low_rank.recurrent_site import Recurrence, RecurrentSite

Vector = npt.NDArray[np.float64]


def projected(site: RecurrentSite, scope: Scope, fit: Fit) -> Patch:
    """Describe the edit that hoists a projection of X out of every node that reads a weight.

    Parameters
    ----------
    site, scope
        The weight, and where it lies.
    fit
        The directions to keep.
    """
    directions, gates, features = site.stored_shape
    inner = _constant(site, "in", site.matrix().T @ fit.directions)
    outer = _constant(site, "out", fit.directions.reshape(directions, gates, fit.rank))
    lost = fit.lost
    biases: dict[ir.Value | None, Fresh] = {}
    if lost is not None:
        biases = {
            use.bias_value: _constant(site, "bias", _corrected(use, lost)) for use in site.uses
        }
    projections: dict[ir.Value, Fresh] = {}
    added: list[NewNode] = []
    rewire: dict[ir.Value, ir.Value | Fresh] = {}
    for use in site.uses:
        if use.data not in projections:
            thin = projections[use.data] = Fresh(f"{use.data.name}_thin")
            added.append(NewNode("MatMul", (use.data, inner), (thin,)))
        outputs = tuple(
            Fresh(f"{output.name or use.node.name or use.node.op_type}_{index}")
            for index, output in enumerate(use.node.outputs)
        )
        operands: list[Operand] = list(use.node.inputs)
        operands[:2] = [projections[use.data], outer]
        if lost is not None:
            operands += [None] * (BIAS + 1 - len(operands))
            operands[BIAS] = biases[use.bias_value]
        attributes = dict(use.node.attributes.items())
        added.append(NewNode(use.node.op_type, tuple(operands), outputs, attributes))
        rewire |= {old: new for old, new in zip(use.node.outputs, outputs, strict=True) if old.name}
    nodes = tuple(use.node for use in site.uses)
    title = f"{site.weight.name}: {directions} x {gates} x {features} at rank {fit.rank}"
    edit = Edit(nodes, reading_replacements(added, rewire), rewire=rewire)
    return Patch(title, nodes[0], {scope: edit})


def _corrected(use: Recurrence, lost: Vector) -> Vector:
    """Add what is lost to the half of B that goes with the input weight, [D, 2 G H]."""
    if use.bias is None:  # the fit is centred only where every bias is constant
        raise ValueError(use.node.name)
    bias = use.bias.copy()
    half = bias.shape[1] // 2
    bias[:, :half] += lost.reshape(len(bias), half)
    return bias


def _constant(site: RecurrentSite, suffix: str, array: Vector) -> Fresh:
    data = np.ascontiguousarray(array, site.tensor.dtype.numpy())
    return Fresh(f"{site.weight.name}_{suffix}", ir.tensor(data))
