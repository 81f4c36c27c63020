"""fold-constants: what can be computed before the first run is computed now.

What it does
    Evaluates nodes whose inputs are all constant, and shape computations on known shapes, with
    onnxscript's constant folding.

Why
    Exporters leave arithmetic on shapes and weights in the graph.

Leaves alone
    Results larger than what they replace (the manager drops a step that grows the model), and
    graphs of more nodes than the library scales to. Defaults of inputs are no constants.

Exactness
    ROUNDING: constants are computed by the reference evaluator instead of the runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.cleanup.folding import fold
from structopt_onnx.rewriting.passes import Cleanup

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class FoldConstants(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-constants"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    largest: ClassVar[int | None] = 3000

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        fold(model)
