"""fold-dimensions: a dimension that is known is not read off a value.

What it does
    A `Gather` of dimensions out of a `Shape` becomes a constant where those dimensions are
    static, whatever the others are.

Why
    Exporters compute pads and shapes from sizes that only the batch leaves open; the library's
    constant folding wants all dimensions, or a list of indices.

Leaves alone
    Dimensions that may change, and reads that make a graph output.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True, eq=False)
class Found:
    """A read of dimensions and what it yields."""

    node: ir.Node
    dimensions: np.ndarray


@dataclass(frozen=True)
class FoldDimensions(NodePass[Found]):
    """Has no options."""

    name: ClassVar[str] = "fold-dimensions"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    roots: ClassVar[frozenset[str]] = frozenset({"Gather"})
    refusals: ClassVar[dict[str, str]] = {
        "dimension-makes-output": "the result is a graph output, which a node must make",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Found | Refusal | None:
        """Look for static dimensions of a value whose shape is read."""
        del scope
        data, index = node.inputs[0], facts.array(node.inputs[1])
        shape = None if data is None else data.producer()
        if shape is None or shape.domain != "" or shape.op_type != "Shape" or index is None:
            return None
        if any(a.is_ref() for a in (*shape.attributes.values(), *node.attributes.values())):
            return None
        dims = facts.dims(shape.inputs[0])
        if dims is None:
            return None
        first, last = (shape.attributes.get(name) for name in ("start", "end"))
        start = 0 if first is None else first.as_int()
        dims = dims[start : None if last is None else last.as_int()]
        if any(not -len(dims) <= int(i) < len(dims) for i in index.reshape(-1)):
            return None
        picked = [dims[int(i)] for i in index.reshape(-1)]
        known = [d for d in picked if d is not None]
        if len(known) < len(picked):
            return None
        if node.outputs[0].is_graph_output():
            detail = f"it makes '{node.outputs[0].name}'"
            return Refusal("dimension-makes-output", detail, node.name or "")
        return Found(node, np.array(known, np.int64).reshape(index.shape))

    def rewrite(self, scope: Scope, facts: Facts, match: Found) -> Patch:
        """Describe the edit."""
        del facts
        result = match.node.outputs[0]
        constant = Fresh(result.name or "dimensions", ir.tensor(match.dimensions))
        edit = Edit(remove=(match.node,), rewire={result: constant})
        shown = " ".join(str(d) for d in match.dimensions.reshape(-1))
        return Patch(f"{result.name} is {shown}", match.node, {scope: edit})
