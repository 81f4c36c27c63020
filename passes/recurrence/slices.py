"""Slices: the nodes of one step of an unrolled recurrence, and their images in all others.

The slice of step 0 is what lies between the first product of a chain and everything that step 1
reads of it. Every other step must hold an image of it: nodes with the same signature and
constants whose inputs are the images of the inputs, checked edge by edge. What a slice reads
from elsewhere is a state (made by the slice before), the same in every step, or an input of its
own in each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.passes.recurrence.images import Edge, Image, mapped, reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.chains import Chain

_FEWEST = 2
_MOST_STATES = 8


@dataclass(frozen=True, eq=False)
class Unrolled:
    """An unrolled recurrence, described by its first slice.

    Parameters
    ----------
    chain
        What it was found by.
    nodes
        The first slice in topological order.
    images
        Per step, what stands for each value that the first slice makes or reads. The last step
        may lack nodes that nothing read.
    copies
        Per step, the node that stands for each node of the first slice.
    states
        Value read by the first slice to the value it makes for the next to read.
    inputs
        Values read by the first slice for which each step reads another one.
    roles
        Where the first slice reads one value, or a constant, for several states: a stand-in for
        all states but one, by the edge that reads it.
    """

    chain: Chain
    nodes: tuple[ir.Node, ...]
    images: tuple[Mapping[ir.Value, ir.Value], ...]
    copies: tuple[Mapping[ir.Node, ir.Node], ...]
    states: Mapping[ir.Value, ir.Value]
    inputs: tuple[ir.Value, ...]
    roles: Mapping[Edge, ir.Value]

    @property
    def length(self) -> int:
        """The number of steps."""
        return len(self.images)

    def reads(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Return what a node of the first slice reads, each state by a name of its own."""
        return reads(node, self.roles)

    def first(self, state: ir.Value) -> ir.Value:
        """Return the value that a state has in step 0."""
        return self.images[0].get(state, state)

    def series(self, value: ir.Value) -> tuple[ir.Value | None, ...]:
        """Return the images of a value of the first slice, one per step."""
        return tuple(image.get(value) for image in self.images)

    def all_nodes(self) -> tuple[ir.Node, ...]:
        """Return the nodes of all slices."""
        return tuple(node for copy in self.copies for node in copy.values())


def unrolled(chain: Chain, facts: Facts, position: Mapping[ir.Node, int]) -> Unrolled | None:
    """Find the slices of a chain; None when its steps do not look alike.

    Parameters
    ----------
    chain
        Products that follow each other.
    facts
        Knows the constants.
    position
        Place of each node in the graph's order.
    """
    found = _unrolled(chain, facts, position)
    for _ in range(_MOST_STATES):
        if found is None:
            break
        entering = [found.series(state) for state in found.states]
        new = next((s for s in entering if s not in found.chain.anchors), None)
        if new is None:
            break
        again = found.chain.anchored(new, facts)
        if again.steps == found.chain.steps:
            found = replace(found, chain=again)
        else:
            found = _unrolled(again, facts, position)
    return found


def _unrolled(chain: Chain, facts: Facts, position: Mapping[ir.Node, int]) -> Unrolled | None:
    while len(chain.products) >= _FEWEST:
        first = _first_slice(chain, facts, position)
        if first is not None:
            return _all_slices(chain, facts, first)
        chain = chain.without_first()  # an exporter may have folded half of it away
    return None


@dataclass(frozen=True)
class _First:
    """The first slice, and what it reads from outside."""

    nodes: tuple[ir.Node, ...]
    states: dict[ir.Value, ir.Value]
    inputs: tuple[ir.Value, ...]
    same: tuple[ir.Value, ...]
    roles: dict[Edge, ir.Value]


def _first_slice(chain: Chain, facts: Facts, position: Mapping[ir.Node, int]) -> _First | None:
    """Find the first slice; its image in step 1 tells its states from its inputs."""
    second = chain.products[1]
    entering = second.inputs[chain.state]
    roots: set[ir.Value] = {entering} if entering is not None else set()
    while True:
        nodes = tuple(sorted(_closure(chain, roots), key=position.__getitem__))
        made = frozenset(output for node in nodes for output in node.outputs)
        partial = len(chain.products) == _FEWEST  # then step 1 is the last
        image = mapped(chain, nodes, Image({}, made, {}, False, facts, chain, 1), partial=partial)
        if image is None:
            return None
        first = _told_apart(chain, nodes, made, image, facts)
        if first is None or set(first.states.values()) <= made:
            return first
        roots |= set(first.states.values())


def _told_apart(
    chain: Chain,
    nodes: tuple[ir.Node, ...],
    made: frozenset[ir.Value],
    image: Image,
    facts: Facts,
) -> _First | None:
    """Tell what the first slice reads apart by what stands for it in step 1."""
    found: dict[tuple[ir.Value, ir.Value], ir.Value] = {}
    states: dict[ir.Value, ir.Value] = {}
    inputs: dict[ir.Value, None] = {}
    same: dict[ir.Value, None] = {}
    roles: dict[Edge, ir.Value] = {}
    for node in (n for n in nodes if n in image.copy):
        for index, (a, b) in enumerate(zip(node.inputs, image.copy[node].inputs, strict=True)):
            constant = a is not None and facts.tensor(a) is not None
            if a is None or b is None or a in made or (constant and a is b):
                continue
            if (a, b) not in found:
                taken = constant or any(known is a for known, _ in found)
                found[a, b] = ir.Value(name=f"{a.name}_again") if taken else a
            reader = found[a, b]
            if reader is not a:
                roles[node, index] = reader
            step = chain.step(b)
            if step > 0:
                return None
            if step == 0:
                states[reader] = b
            elif a is b:
                same[reader] = None
            else:
                inputs[reader] = None
    return _First(nodes, states, tuple(inputs), tuple(same), roles)


def _closure(chain: Chain, roots: Iterable[ir.Value]) -> set[ir.Node]:
    """Return the nodes of step 0 that the roots depend on."""
    found: set[ir.Node] = set()
    waiting = [value.producer() for value in roots]
    while waiting:
        node = waiting.pop()
        if node is None or node in found or chain.steps.get(node) != 0:
            continue
        found.add(node)
        waiting += [value.producer() for value in node.inputs if value is not None]
    return found


def _all_slices(chain: Chain, facts: Facts, first: _First) -> Unrolled | None:
    made = frozenset(output for node in first.nodes for output in node.outputs)
    outside = {
        a: b
        for node in first.nodes
        for a, b in zip(reads(node, first.roles), node.inputs, strict=True)
        if a is not None and b is not None and (a is not b or facts.tensor(a) is None)
    }
    start = {v: v for v in made} | outside
    same = {v: v for v in first.same}
    slices = [Image(start, made, first.roles, True, facts, chain, 0)]
    slices[0].copy.update((node, node) for node in first.nodes)
    for number in range(1, len(chain.products)):
        before = slices[-1].image
        known = same | {s: before[n] for s, n in first.states.items() if n in before}
        if len(known) < len(same) + len(first.states):
            break
        last = number == len(chain.products) - 1
        empty = Image(known, made, first.roles, True, facts, chain, number)
        image = mapped(chain, first.nodes, empty, partial=last)
        if image is None:
            break
        if any(chain.step(v) >= 0 for s in first.inputs if (v := image.image.get(s)) is not None):
            break  # what should be an input depends on the recurrence
        if last and any(value not in image.image for value in first.inputs):
            break  # nothing but a rest of the last step was left
        slices.append(image)
    copies = [node for found in slices for node in found.copy.values()]
    if len(slices) < _FEWEST or len(set(copies)) < len(copies):
        return None
    return Unrolled(
        chain,
        first.nodes,
        tuple(s.image for s in slices),
        tuple(s.copy for s in slices),
        first.states,
        first.inputs,
        first.roles,
    )
