"""Chains: products with one weight, each of which depends on the one before.

A recurrence that a loop wrote out multiplies its state by the same weight in every step. These
products are the clock: the k-th of them marks step k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from structopt_onnx.model.scope import inner_nodes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from structopt_onnx.model.facts import Facts

Steps = dict["ir.Node", int]
Series = tuple["ir.Value | None", ...]
_PRODUCTS = {"Gemm", "MatMul", "Conv"}
_MATRIX = 2


def signature(node: ir.Node) -> tuple[Any, ...] | None:
    """Return what two nodes that do the same have in common; None for nodes with a body."""
    attributes = []
    for name, attribute in sorted(node.attributes.items()) if node.attributes else ():
        if attribute.type in {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}:
            return None
        value = attribute.value
        attributes.append((name, value if _is_plain(value) else id(value)))
    return node.domain, node.op_type, tuple(attributes), len(node.inputs), len(node.outputs)


def _is_plain(value: object) -> bool:
    return isinstance(value, int | float | str | tuple)


class Order:
    """The nodes of a graph in order."""

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes = tuple(graph)
        self.position = _numbered(self.nodes)

    def behind(self, nodes: Iterable[ir.Node]) -> tuple[ir.Node, ...]:
        """Return everything from the first of some nodes on."""
        return self.nodes[min(self.position[node] for node in nodes) :]


@dataclass(frozen=True, eq=False)
class Chain:
    """Products with one weight that follow each other.

    Parameters
    ----------
    products
        In order; product k marks step k.
    state
        Which input of theirs comes from the step before.
    steps
        The step of each node that depends on the first product: the number of products on the
        longest way to it, less one.
    order
        The graph's nodes in order.
    anchors
        Values of states, one per step. What reads one of them and nothing else that the
        recurrence makes belongs to that step, although it depends on the step before only.
    """

    products: tuple[ir.Node, ...]
    state: int
    steps: Mapping[ir.Node, int]
    order: Order
    anchors: tuple[Series, ...] = ()

    def step(self, value: ir.Value) -> int:
        """Return the step that makes a value; -1 for what the recurrence does not touch."""
        node = value.producer()
        return -1 if node is None else self.steps.get(node, -1)

    def without_first(self) -> Chain:
        """Return the chain that starts one step later."""
        later = {node: step - 1 for node, step in self.steps.items() if step > 0}
        # Slices that ended early left states known for fewer steps.
        anchors = tuple(series[1:] for series in self.anchors if len(series) > 1)
        return Chain(self.products[1:], self.state, later, self.order, anchors)

    def anchored(self, series: Series, facts: Facts) -> Chain:
        """Return the chain with the readers of one more state in the step that reads it."""
        known = [_readers(value, self, facts) for value in series]
        chain = replace(self, anchors=(*self.anchors, series))
        for kind in known[0]:
            if kind in known[1]:
                moved = {n: i for i, found in enumerate(known) for n in found.get(kind, ())}
                marks = {
                    n: step for n, step in chain.steps.items() if chain.starts(n, step)
                } | moved
                steps = _steps(marks, self.order.behind(marks))
                # What makes the next state out of this one belongs to the step before.
                chain = chain if steps is None else replace(chain, steps=steps)
        return chain

    def starts(self, node: ir.Node, step: int) -> bool:
        """Whether a node's step is one more than that of everything it depends on."""
        inputs = (self.step(value) for value in node.inputs if value is not None)
        return max(inputs, default=-1) < step


@dataclass(frozen=True, eq=False)
class Products:
    """Products by their weights.

    Parameters
    ----------
    chains
        Those with one weight that follow each other.
    apart
        Those with one weight of which none depends on another.
    alone
        Those of rows whose weight no other has.
    order
        The graph's nodes in order.
    """

    chains: tuple[Chain, ...]
    apart: tuple[tuple[ir.Node, ...], ...]
    alone: tuple[ir.Node, ...]
    order: Order


def products(graph: ir.Graph, facts: Facts) -> Products:
    """Group the products of a graph; each group costs one walk over the nodes behind its start."""
    order = Order(graph)
    found: list[Chain] = []
    apart: list[tuple[ir.Node, ...]] = []
    alone: list[ir.Node] = []
    for (_, state, _), members in _groups(order.nodes, facts).items():
        if len(members) > 1:
            joins, marks = members[0].op_type == "Concat", _numbered(members)
            steps = None if joins else _steps(marks, order.behind(marks))
            if steps is not None:
                chain = _turned(Chain(tuple(members), state, steps, order))
                entering = tuple(n.inputs[chain.state] for n in chain.products)
                found.append(chain.anchored(entering, facts))
            elif state == 0 and _are_apart(members, order.behind(marks)):
                apart.append(tuple(members))
        elif state == 0 and members[0].op_type in {"Gemm", "MatMul"}:
            alone += members
    return Products(tuple(found), tuple(apart), tuple(alone), order)


def _numbered(members: Sequence[ir.Node]) -> dict[ir.Node, int]:
    return {node: index for index, node in enumerate(members)}


def _are_apart(members: list[ir.Node], nodes: tuple[ir.Node, ...]) -> bool:
    marks, after = set(members), set[ir.Node]()
    for node in nodes:
        behind = any(v is not None and v.producer() in after for v in _read(node))
        if behind and node in marks:
            return False
        if behind or node in marks:
            after.add(node)
    return True


def _turned(chain: Chain) -> Chain:
    """Start the steps at the concatenation of input and state that the product reads.

    The concatenation depends on the product of the step before, but holds this step's input.
    """
    values = [node.inputs[chain.state] for node in chain.products]
    starts = [value.producer() for value in values if value is not None]
    found = [node for node in starts if node is not None and node.op_type == "Concat"]
    if len(found) < len(values) - 1 or len(set(found)) < len(found) or not found:
        return chain
    last = found[-1]
    states = [i for i, v in enumerate(last.inputs) if v is not None and chain.step(v) >= 0]
    if len(states) != 1 or len(found) < _MATRIX:
        return chain
    marks = _numbered(found)
    steps = _steps(marks, chain.order.behind(marks))
    return chain if steps is None else Chain(tuple(found), states[0], steps, chain.order)


def _groups(
    nodes: tuple[ir.Node, ...], facts: Facts
) -> dict[tuple[Any, int, tuple[ir.Value | None, ...]], list[ir.Node]]:
    groups: dict[tuple[Any, int, tuple[ir.Value | None, ...]], list[ir.Node]] = {}
    for node in nodes:
        if node.domain == "" and node.op_type == "Concat":
            groups.setdefault((signature(node), 0, ()), []).append(node)
        if node.domain != "" or node.op_type not in _PRODUCTS:
            continue
        constant = [v is None or facts.tensor(v) is not None for v in node.inputs]
        if not any(constant[:_MATRIX]) or not all(constant[_MATRIX:]):
            continue
        # The first state may be a constant, too.
        for state in range(_MATRIX):
            if constant[1 - state]:
                fixed = tuple(None if i == state else v for i, v in enumerate(node.inputs))
                groups.setdefault((signature(node), state, fixed), []).append(node)
    return groups


def _read(node: ir.Node) -> Iterator[ir.Value | None]:
    """Yield what a node reads, what its branches capture included."""
    yield from node.inputs
    for _, graph in subgraphs(node):
        for inner in graph:
            for each in inner_nodes(inner):
                yield from each.inputs


def _steps(marks: Mapping[ir.Node, int], nodes: tuple[ir.Node, ...]) -> Steps | None:
    """Return the step of each node; None when the marks do not follow each other."""
    steps: dict[ir.Node, int] = {}
    for node in nodes:
        step = -1
        for value in _read(node):
            producer = value.producer() if value is not None else None
            if producer in steps:
                step = max(step, steps[producer])
        mark = marks.get(node)
        if mark is not None:
            if step != mark - 1:
                return None
            step = mark
        if step >= 0:
            steps[node] = step
    return steps


def _readers(
    state: ir.Value | None, chain: Chain, facts: Facts
) -> dict[tuple[Any, ...], list[ir.Node]]:
    """Return what reads a state and nothing else that the recurrence makes, by kind."""
    found: dict[tuple[Any, ...], list[ir.Node]] = {}
    for use in state.uses() if state is not None else ():
        node, kind = use.node, signature(use.node)
        if kind is None or node in chain.products or (state and node.graph is not state.graph):
            continue
        others = [v for i, v in enumerate(node.inputs) if i != use.idx and v is not None]
        if all(v is not state and chain.step(v) < 0 for v in others):
            fixed = tuple(v for v in others if facts.tensor(v) is not None)
            found.setdefault((kind, use.idx, fixed), []).append(node)
    return found
