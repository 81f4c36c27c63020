"""Scopes: the places in a model that hold nodes and initializers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Iterator


_HOLD_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


@dataclass(frozen=True)
class Scope:
    """The main graph, a subgraph of a node, or the body of a function.

    Two scopes are equal when they stand for the same graph object.

    Parameters
    ----------
    graph
        The graph whose nodes and initializers are meant.
    path
        Where it is, for people: ``graph``, ``graph/If_3.then_branch``, ``function my::F``.
    parent
        The scope around it, whose values it may capture; None for the main graph and functions.
    in_function
        Whether it is a function body or lies inside one.
    """

    graph: ir.Graph
    path: str
    parent: Scope | None = None
    in_function: bool = False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scope) and self.graph is other.graph

    def __hash__(self) -> int:
        return id(self.graph)

    @property
    def is_main(self) -> bool:
        """Whether this is the model's main graph, whose values a session can hand out."""
        return self.parent is None and not self.in_function

    @property
    def depth(self) -> int:
        """How many scopes are around this one."""
        return 0 if self.parent is None else 1 + self.parent.depth

    @property
    def outermost(self) -> Scope:
        """The main graph or function that this scope lies in, or is."""
        return self if self.parent is None else self.parent.outermost

    def sees(self, graph: ir.Graph | None) -> bool:
        """Whether values of `graph` can be named here: it is this scope's or one around it."""
        scope: Scope | None = self
        while scope is not None:
            if scope.graph is graph:
                return True
            scope = scope.parent
        return False


def subgraphs(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Yield ``(attribute name, graph)`` for each graph attribute of a node."""
    for name, attribute in node.attributes.items():
        kind = attribute.type
        if kind not in _HOLD_GRAPHS or attribute.is_ref():
            continue
        if kind == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        else:
            for index, graph in enumerate(attribute.as_graphs()):
                yield f"{name}[{index}]", graph


def inner_nodes(node: ir.Node) -> Iterator[ir.Node]:
    """Yield a node and the nodes of its subgraphs, at every depth."""
    yield node
    for _, graph in subgraphs(node):
        for inner in graph:
            yield from inner_nodes(inner)


def _nested(scope: Scope) -> Iterator[Scope]:
    yield scope
    for node in scope.graph:
        for attribute, graph in subgraphs(node):
            label = node.name or node.op_type
            yield from _nested(
                Scope(graph, f"{scope.path}/{label}.{attribute}", scope, scope.in_function)
            )


def scopes(model: ir.Model) -> tuple[Scope, ...]:
    """List every scope of a model: the main graph first, outer before inner, functions last."""
    found = list(_nested(Scope(model.graph, "graph")))
    for function in model.functions.values():
        label = f"function {function.domain}::{function.name}"
        found.extend(_nested(Scope(function.graph, label, in_function=True)))
    return tuple(found)
