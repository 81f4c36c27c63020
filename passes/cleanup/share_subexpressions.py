"""share-subexpressions: the same operation on the same inputs is done once.

What it does
    Nodes with equal operator, attributes and inputs become one, by onnx_ir's common
    subexpression elimination.

Why
    Exporters repeat shape computations and casts for every use.

Leaves alone
    Random operators, operators of other domains and calls of functions, nodes with subgraphs,
    and nodes inside subgraphs and functions.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import onnx_ir.passes.common as onnx_ir_passes

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.cleanup.folding import is_random
from structopt_onnx.rewriting.passes import Cleanup

_MARK = "structopt_onnx_apart"


@dataclass(frozen=True)
class ShareSubexpressions(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "share-subexpressions"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        # The library merges random operators and calls; a mark of its own keeps each apart.
        marked = [node for graph in model.graphs() for node in graph if is_random(node)]
        for number, node in enumerate(marked):
            node.attributes[_MARK] = ir.AttrInt64(_MARK, number)
        try:
            onnx_ir_passes.CommonSubexpressionEliminationPass()(model)
        finally:
            for node in marked:
                node.attributes.pop(_MARK, None)
