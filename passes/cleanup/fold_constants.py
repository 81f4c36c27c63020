"""fold-constants: what can be computed before the first run is computed now.

What it does
    Evaluates nodes whose inputs are all constant, and shape computations on known shapes, with
    onnxscript's constant folding. A `ConstantOfShape` is evaluated where it fills a few integers,
    which are part of a shape, pads or axes.

Why
    Exporters leave arithmetic on shapes and weights in the graph.

Leaves alone
    Results larger than what they replace (the manager drops a step that grows the model), and
    graphs of more nodes than the library scales to. Defaults of inputs are no constants. Weights
    made by `ConstantOfShape` are not written out.

Exactness
    ROUNDING: constants are computed by the reference evaluator instead of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.cleanup.folding import fold
from structopt_onnx.rewriting.passes import Cleanup

_FEW = 16


@dataclass(frozen=True)
class FoldConstants(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    largest: ClassVar[int | None] = 3000

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        fold(model, _fills_a_few_integers)


def _fills_a_few_integers(node: ir.Node) -> bool | None:
    """Let the library evaluate what it keeps by default; None leaves a node to its own limits."""
    if node.domain != "" or node.op_type != "ConstantOfShape" or node.inputs[0] is None:
        return None
    shape, fill = ir.convenience.get_const_tensor(node.inputs[0]), node.attributes.get("value")
    if shape is None or fill is None or node.inputs[0].is_graph_input():
        return None
    few = 0 <= int(np.prod(shape.numpy())) <= _FEW
    return True if few and fill.as_tensor().dtype.is_integer() else None
