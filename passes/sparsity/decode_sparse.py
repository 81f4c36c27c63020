"""decode-sparse: weights that are decoded from a bitmask or from gaps are stored dense again.

What it does
    A tensor that BitShift, ScatterElements and the like compute from constants alone becomes an
    initializer, computed by numpy. It carries a mark by which encode-sparse stores it so again.

Why
    Other passes see weights among the initializers only. A library that folds constants would do
    it, and the model would stay large.

Leaves alone
    Outputs of the graph, function bodies, and what does not compute: indices out of range, shapes
    that don't fit, more than 2^27 elements.

Exactness
    ROUNDING: the weights are the same bits; see encode-sparse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.sparsity.constant_tree import decode_trees
from structopt_onnx.rewriting.passes import Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

DECODED = "structopt_onnx.decoded"
"""Key in `meta` of a tensor that was decoded by nodes and is to be encoded so again."""


@dataclass(frozen=True)
class DecodeSparse(Pass):
    """Has no options."""

    name: ClassVar[str] = "decode-sparse"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    canonical: ClassVar[bool] = True
    refusals: ClassVar[dict[str, str]] = {
        "graph-output": "an output of the graph must be made by a node",
        "not-computed": "its constants don't fit each other, are too large, or scatter another way",
    }

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield what could be done in one scope; reads only."""
        if scope.in_function:
            return
        for tree in decode_trees(scope, facts):
            output = tree.root.outputs[0]
            name = output.name or ""
            if output.is_graph_output():
                yield Refusal("graph-output", f"made by {tree.root.op_type}", name)
                continue
            array = tree.evaluate(facts)
            if array is None or (output.dtype is not None and output.dtype.numpy() != array.dtype):
                yield Refusal("not-computed", f"by {tree.root.op_type}", name)
                continue
            tensor = ir.tensor(array)
            tensor.meta[DECODED] = True
            dense = Fresh(name, tensor)
            edit = Edit(remove=tree.removable(), rewire={output: dense})
            yield Patch(f"{name}: {array.nbytes} bytes", tree.root, {scope: edit})
