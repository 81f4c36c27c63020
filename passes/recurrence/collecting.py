"""Collecting: who reads the outputs of the steps, and what they read instead.

Outputs that are stacked or concatenated come out of the operator's own stack by a transpose;
those read one by one are split off it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.model.edit import Fresh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

    from structopt_onnx.model.edit import Operand
    from structopt_onnx.passes.recurrence.dims import Dims
    from structopt_onnx.passes.recurrence.plumbing import Plumbing
    from structopt_onnx.passes.recurrence.sizes import Sizes

_FEW = 2


@dataclass
class Rewiring:
    """Old values to new ones; graph outputs each get a value of their own."""

    plumbing: Plumbing
    changes: dict[ir.Value, ir.Value | Fresh] = field(default_factory=dict)
    _given: set[Fresh] = field(default_factory=set)

    def put(self, old: ir.Value, new: Operand) -> None:
        """Let the readers of `old` read `new`."""
        if new is None:
            raise ValueError(old.name)
        if old.is_graph_output():
            if not isinstance(new, Fresh) or new.tensor is not None or new in self._given:
                new = self.plumbing.node("Identity", (new,), old.name or "y")
            self._given.add(new)
        self.changes[old] = new


@dataclass(frozen=True)
class Collection:
    """A node that puts outputs of several steps together.

    Parameters
    ----------
    nodes
        The Concat, and the Unsqueeze nodes that only it reads.
    result
        What it makes.
    steps
        The steps whose outputs it takes, in its order.
    axis
        Where it concatenates.
    stacks
        Whether the outputs get the axis first.
    """

    nodes: tuple[ir.Node, ...]
    result: ir.Value
    steps: tuple[int, ...]
    axis: int
    stacks: bool


@dataclass(frozen=True)
class Readers:
    """Who reads the outputs of the steps.

    Parameters
    ----------
    collections
        Nodes that put outputs of steps together, and nothing else.
    single
        Steps whose output is read otherwise.
    """

    collections: tuple[Collection, ...]
    single: tuple[int, ...]


def readers(series: Sequence[ir.Value | None], gone: frozenset[ir.Node], sizes: Sizes) -> Readers:
    """Find who reads the outputs of the steps.

    Parameters
    ----------
    series
        The output of each step.
    gone
        Readers that will be no more.
    sizes
        Knows axes and ranks.
    """
    steps = {value: step for step, value in enumerate(series) if value is not None}
    known: dict[ir.Node, Collection | None] = {}
    single: set[int] = set()
    for value, step in steps.items():
        if value.is_graph_output():
            single.add(step)
        for use in value.uses():
            if use.node in gone:
                continue
            ends = _ends(use.node, value)
            for end in ends:
                if end not in known:
                    known[end] = _collection(end, steps, sizes)
            if not ends or any(known[end] is None for end in ends):
                single.add(step)
    found = tuple(c for c in known.values() if c is not None)
    return Readers(found, tuple(sorted(single)))


def _ends(node: ir.Node, value: ir.Value) -> tuple[ir.Node, ...]:
    """Return the Concat nodes that a reader is or leads to; none for any other reader."""
    if node.domain != "" or node.graph is not value.graph:
        return ()
    if node.op_type == "Concat":
        return (node,)
    if node.op_type != "Unsqueeze" or node.outputs[0].is_graph_output():
        return ()
    after = tuple(use.node for use in node.outputs[0].uses())
    same = all(n.op_type == "Concat" and n.domain == "" and n.graph is node.graph for n in after)
    return after if same else ()


def _collection(node: ir.Node, steps: Mapping[ir.Value, int], sizes: Sizes) -> Collection | None:
    order: list[int] = []
    unsqueezed: list[ir.Node] = []
    axes: set[int | None] = set()
    rank = None
    for value in node.inputs:
        source, axis = value, None
        producer = value.producer() if value is not None else None
        if value not in steps and producer is not None and producer.op_type == "Unsqueeze":
            source, axis = producer.inputs[0], _new_axis(producer, sizes)
            unsqueezed.append(producer)
            if axis is None:
                return None
        if source is None or source not in steps:
            return None
        rank = len(sizes.dims(source) or ())
        axes.add(axis)
        order.append(steps[source])
    if len(axes) != 1 or not rank:
        return None
    (new,) = axes
    stacks = new is not None
    axis = node.attributes["axis"].as_int() % (rank + stacks)
    if not stacks and not all(isinstance(d, int) for d in (sizes.dims(source) or ())[1:]):
        return None
    if new is not None and axis != new:
        return None
    exclusive = [n for n in unsqueezed if all(u.node is node for u in n.outputs[0].uses())]
    nodes = (node, *dict.fromkeys(exclusive))
    return Collection(nodes, node.outputs[0], tuple(order), axis, stacks)


def _new_axis(node: ir.Node, sizes: Sizes) -> int | None:
    rank = sizes.dims(node.outputs[0])
    if "axes" in node.attributes:
        axes: Sequence[object] = node.attributes["axes"].as_ints()
    else:
        axes = sizes.contents(node.inputs[1]) or ()
    if len(axes) != 1 or not isinstance(axes[0], int) or rank is None:
        return None
    return axes[0] % len(rank)


@dataclass(frozen=True)
class Stack:
    """Outputs of all steps in one tensor, steps first: [steps, batch, ...].

    Parameters
    ----------
    value
        The tensor.
    position
        Where in it the output of each step is.
    features
        Sizes of one step's output behind the first.
    name
        What new values are called after.
    """

    value: Operand
    position: tuple[int, ...]
    features: Dims
    name: str

    def collect(self, wanted: Collection, plumbing: Plumbing) -> Operand:
        """Return what a collection made."""
        positions = tuple(self.position[step] for step in wanted.steps)
        value = self.value
        if positions != tuple(range(len(self.position))):
            value = plumbing.take(value, positions, 0, f"{self.name}_taken")
        rest = list(range(1, len(self.features) + 2))
        rest.insert(wanted.axis, 0)
        turned = plumbing.transpose(value, rest, f"{self.name}_stacked")
        if wanted.stacks:
            return turned
        # One behind the other: the axis of the steps and the one behind it become one.
        sizes = [0, *(d if isinstance(d, int) else 0 for d in self.features)]
        joined = sizes[wanted.axis] * len(positions) if wanted.axis else -1
        sizes[wanted.axis] = joined
        return plumbing.reshape(turned, sizes, f"{self.name}_joined")

    def spread(
        self, series: Sequence[ir.Value | None], steps: Sequence[int], rewiring: Rewiring
    ) -> None:
        """Give the readers of single steps their entries."""
        plumbing = rewiring.plumbing
        width = self.features[0] if len(self.features) == 1 else None
        if len(steps) <= _FEW or not isinstance(width, int):
            for step in steps:
                index = plumbing.integers(self.position[step], f"{self.name}_index")
                attributes = {"axis": 0}
                taken = plumbing.node(
                    "Gather", (self.value, index), f"{self.name}_step", attributes
                )
                self._put(series, step, taken, rewiring)
            return
        rows = plumbing.reshape(self.value, (-1, width), f"{self.name}_rows")
        parts = plumbing.split(rows, [f"{self.name}_{k}" for k in range(len(self.position))], 0)
        for step in steps:
            self._put(series, step, parts[self.position[step]], rewiring)

    @staticmethod
    def _put(series: Sequence[ir.Value | None], step: int, new: Fresh, rewiring: Rewiring) -> None:
        old = series[step]
        if old is not None:
            rewiring.put(old, new)
