"""fold-constants: what can be computed before the first run is computed now.

What it does
    Evaluates nodes whose inputs are all constant, and shape computations on known shapes, with
    onnxscript's constant folding.

Why
    Exporters leave arithmetic on shapes and weights in the graph.

Leaves alone
    Results larger than what they replace (the manager drops a step that grows the model), and
    graphs of more nodes than the library scales to.

Exactness
    ROUNDING: constants are computed by the reference evaluator instead of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as onnx_ir_passes
import onnxscript.optimizer

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup


@dataclass(frozen=True)
class FoldConstants(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    largest: ClassVar[int | None] = 3000

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        onnxscript.optimizer.fold_constants_ir(model)
        onnx_ir_passes.RemoveUnusedNodesPass()(model)
