"""One name, one value: initializers of a body that hide an outer name get a name of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.patch import Names
from structopt_onnx.model.scope import scopes

if TYPE_CHECKING:
    import onnx_ir as ir


def rename_shadows(model: ir.Model) -> None:
    """Rename initializers of subgraphs whose name is taken in a scope around them, in place.

    The ONNX specification forbids to hide a name ("Names Within a Graph"), yet the checker and
    onnxruntime accept it; a rewrite that moves values between scopes can't.
    """
    names: Names | None = None
    taken: dict[ir.Graph, set[str]] = {}
    for scope in scopes(model):
        graph = scope.graph
        outer = taken[scope.parent.graph] if scope.parent is not None else set()
        hiding = [value for name, value in graph.initializers.items() if name in outer]
        for value in hiding:
            names = names or Names(model)
            value.name = names.fresh(value.name or "")
        own = {value.name or "" for value in graph.inputs} | set(graph.initializers)
        own |= {output.name or "" for node in graph for output in node.outputs}
        taken[graph] = outer | own
