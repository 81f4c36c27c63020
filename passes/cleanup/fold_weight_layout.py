"""fold-weight-layout: weights that are cut, joined or turned before use are stored that way.

What it does
    Evaluates chains of Slice, Concat, Transpose, Reshape, Squeeze and Unsqueeze on constants of
    any size, with onnxscript's constant folding. Exporters leave such chains behind
    when they reorder the gates of a recurrent weight.

Why
    The moves cost time at every start, and hide the weight from later passes.

Leaves alone
    Models that would grow, because a weight is used in both layouts: the manager drops the step.
    Split, as the library evaluates only operators with one output.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.cleanup.folding import fold
from structopt_onnx.rewriting.passes import Cleanup

_MOVES = {"Concat", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}


@dataclass(frozen=True)
class FoldWeightLayout(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-weight-layout"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    largest: ClassVar[int | None] = 3000

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        fold(model, _moves_a_constant)


def _moves_a_constant(node: ir.Node) -> bool:
    return (
        node.domain == ""
        and node.op_type in _MOVES
        and all(value is None or _is_constant(value) for value in node.inputs)
    )


def _is_constant(value: ir.Value) -> bool:
    return not value.is_graph_input() and ir.convenience.get_const_tensor(value) is not None
