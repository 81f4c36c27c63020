"""normalize: constants become initializers, and what nothing reads is dropped.

What it does
    `Constant` nodes become initializers; nodes and initializers that nothing reads go. Done by
    onnx_ir's own passes, which cost one walk each.

Why
    Every later pass looks for weights among the initializers only.

Leaves alone
    Graph inputs and outputs, and constants inside functions, which hold no initializers.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as onnx_ir_passes

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup


@dataclass(frozen=True)
class Normalize(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "normalize"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        onnx_ir_passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        onnx_ir_passes.RemoveUnusedNodesPass()(model)
