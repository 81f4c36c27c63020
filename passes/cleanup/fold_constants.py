"""fold-constants: what can be computed before the first run is computed now.

What it does
    Evaluates nodes whose inputs are all constant, and shape computations on known shapes, with
    onnxscript's constant folding. A `ConstantOfShape` is evaluated where its result is short, as
    in the computation of pads.

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

# Elements; pads, shapes and axes have no more.
_SHORT = 64


@dataclass(frozen=True)
class FoldConstants(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    largest: ClassVar[int | None] = 3000

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        fold(model, lambda node: True if _is_short_fill(node) else None)


def _is_short_fill(node: ir.Node) -> bool:
    if node.domain != "" or node.op_type != "ConstantOfShape":
        return False
    shape = node.inputs[0]
    tensor = None if shape is None else ir.convenience.get_const_tensor(shape)
    return tensor is not None and int(np.prod(tensor.numpy())) <= _SHORT
