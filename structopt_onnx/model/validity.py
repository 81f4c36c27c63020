"""Whether a graph hangs together: every value defined once, before it is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.model.scope import subgraphs

if TYPE_CHECKING:
    import onnx_ir as ir


def interface(model: ir.Model) -> tuple[tuple[str, str, str], ...]:
    """Return name, type and shape of the model's inputs and outputs, in order."""
    return tuple(
        (value.name or "", str(value.type), str(value.shape))
        for value in (*model.graph.inputs, *model.graph.outputs)
    )


def restore_interface(edited: ir.Model, original: ir.Model) -> None:
    """Give inputs and outputs the types and shapes that they were declared with."""
    pairs = (
        (edited.graph.inputs, original.graph.inputs),
        (edited.graph.outputs, original.graph.outputs),
    )
    for now, before in pairs:
        for value, declared in zip(now, before, strict=False):
            if value.name == declared.name:
                value.type, value.shape = declared.type, declared.shape


def problems(model: ir.Model) -> list[str]:
    """List what is wrong with the model's wiring; empty when nothing is.

    Checks each scope for unnamed and twice-defined values, for values read before they are
    made (ONNX IR specification: nodes are topologically sorted), and for missing outputs.
    """
    found: list[str] = []
    _check(model.graph, set(), set(), found)
    for function in model.functions.values():
        _check(function.graph, set(), set(), found)
    return found


class _Walk:
    """One scope's names and values, on top of those of the scopes around it."""

    def __init__(self, defined: set[ir.Value], taken: set[str], found: list[str]) -> None:
        self.defined, self.taken, self.found = set(defined), set(taken), found

    def define(self, value: ir.Value, what: str) -> None:
        if not value.name:
            self.found.append(f"{what} has no name")
        elif value.name in self.taken:
            self.found.append(f"'{value.name}' is defined twice")
        self.taken.add(value.name or "")
        self.defined.add(value)


def _check(graph: ir.Graph, outer: set[ir.Value], names: set[str], found: list[str]) -> None:
    walk = _Walk(outer, names, found)
    for value in graph.inputs:
        walk.define(value, "a graph input")
    for value in graph.initializers.values():
        if value not in walk.defined:
            walk.define(value, "an initializer")
    for node in graph:
        found.extend(
            f"node '{node.name}' reads '{value.name}' before it is made"
            for value in node.inputs
            if value is not None and value not in walk.defined
        )
        for _, inner in subgraphs(node):
            _check(inner, walk.defined, walk.taken, found)
        for value in node.outputs:
            if value.name != "":
                walk.define(value, f"an output of node '{node.name}'")
    found.extend(
        f"graph output '{value.name}' is made by no node"
        for value in graph.outputs
        if value not in walk.defined
    )
