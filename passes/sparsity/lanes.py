"""Lanes: the channels of a scope's values one by one, which go together, and what each holds.

Two lanes of one class can only be cut together, as the channels on both sides of a Relu. What a
lane holds is a factor times a symbol: lanes of one symbol are proportional at every position and
for every input, and symbol `CONSTANT` is 1 everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from structopt_onnx.passes.convolution.geometry import is_open

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CONSTANT = 0


@dataclass(frozen=True, eq=False)
class Held:
    """What lanes hold: `factors` times `symbols`, an entry per lane."""

    symbols: Ints
    factors: Floats

    @property
    def constant(self) -> Mask:
        """Which lanes are one number."""
        found: Mask = self.symbols == CONSTANT
        return found

    @property
    def zero(self) -> Mask:
        """Which lanes are 0."""
        found: Mask = self.constant & (self.factors == 0)
        return found

    def at(self, index: Ints | slice) -> Held:
        """Return what some of the lanes hold."""
        return Held(self.symbols[index], self.factors[index])


@dataclass(frozen=True, eq=False)
class Lanes:
    """The lanes of a value.

    Parameters
    ----------
    axis
        The axis that they lie along, from the end: negative.
    ids
        A number per lane, the same for lanes that are the same by construction.
    held
        What they hold.
    """

    axis: int
    ids: Ints
    held: Held

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Read:
    """A reader that mixes lanes by stored weights, so that each can be cut for itself.

    Parameters
    ----------
    node, lanes
        The reader and what it reads.
    free
        Lanes it can do without: their weights are zero, or they are constants that its bias takes.
    merges
        Whether the weights of a lane can be added to those of a proportional one.
    code
        Why a constant lane can't be cut here.
    """

    node: ir.Node
    lanes: Lanes
    free: Mask
    merges: bool
    code: str


@dataclass(frozen=True)
class Slicing:
    """A stored operand of a node that is cut along an axis with the lanes `ids`."""

    index: int
    axis: int
    ids: Ints


@dataclass(frozen=True, eq=False)
class Offset:
    """Numbers that the result of an operator without a bias grows by, one per lane of `ids`."""

    axis: int
    ids: Ints
    numbers: Floats


@dataclass(frozen=True)
class Change:
    """What cutting changes of a node beside slicing.

    Parameters
    ----------
    attributes, dropped
        Attributes set and taken away.
    operands
        Stored operands written anew, before they are sliced.
    offset
        What is to be added to the result.
    padded
        An operand that is padded with zeros first, and how much.
    """

    attributes: Mapping[str, int | float | tuple[int, ...]] = field(default_factory=dict)
    operands: Mapping[int, npt.NDArray[Any]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    offset: Offset | None = None
    padded: tuple[int, tuple[int, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Cut:
    """What is to be cut.

    Parameters
    ----------
    lost
        Per lane number, whether it goes.
    merged
        Per read, the lanes that go into others: lost position, kept position, factor.
    """

    lost: Mask
    merged: Mapping[Read, tuple[tuple[int, int, float], ...]]

    def kept(self, ids: Ints) -> Mask:
        """Return which of these lanes stay."""
        kept: Mask = ~self.lost[ids]
        return kept


class Table:
    """The lanes of a scope, filled in by what `operators` says of each node in order.

    Parameters
    ----------
    scope, facts
        The scope to look at, and facts about its model.
    operators
        By operator type, what notes a node's lanes; it returns a refusal code when it can't.
    """

    def __init__(
        self, scope: Scope, facts: Facts, operators: Mapping[str, Callable[[Table, ir.Node], str]]
    ) -> None:
        self.scope, self.facts = scope, facts
        self.lanes: dict[ir.Value, Lanes] = {}
        self.reads: list[Read] = []
        self.slicings: dict[ir.Node, list[Slicing]] = {}
        self.changes: dict[ir.Node, Callable[[Cut], Change]] = {}
        self.fixed: list[tuple[Ints, str]] = []
        self.makers: list[ir.Node] = []
        self.blocks: list[Ints] = []
        self.padded: list[Ints] = []
        self._count, self._symbols = 0, CONSTANT + 1
        self._pairs: list[tuple[Ints, Ints]] = []
        for node in scope.graph:
            known = node.domain == "" and not is_open(node)
            note = operators.get(node.op_type) if known else None
            code = "unknown-reader" if note is None else note(self, node)
            if code:
                for value in node.inputs:
                    self.fix(value, code)
        for value in tuple(self.lanes):
            if value.is_graph_output():
                self.fix(value, "graph-output")
            if any(use.node.graph is not scope.graph for use in value.uses()):
                self.fix(value, "captured")

    def fix(self, value: ir.Value | None, code: str) -> None:
        """Keep all lanes of a value, for this reason."""
        if value in self.lanes:
            self.fixed.append((self.lanes[value].ids, code))

    def new_ids(self, count: int) -> Ints:
        """Return numbers for lanes of no class yet."""
        self._count += count
        return np.arange(self._count - count, self._count)

    def new_symbols(self, *keys: npt.NDArray[Any]) -> Ints:
        """Return new symbols, the same for lanes that have all keys in common."""
        rows = np.stack([np.asarray(key, np.float64) for key in keys], axis=1)
        inverse = np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1)
        base = self._symbols
        self._symbols += len(rows)
        return base + inverse.astype(np.int64)

    def unknown(self, count: int) -> Held:
        """Return lanes of which nothing is known."""
        return Held(self.new_symbols(np.arange(count)), np.ones(count))

    def join(self, one: Ints, other: Ints) -> None:
        """Put lanes into one class, pair by pair."""
        if one is not other:
            self._pairs.append((one, other))

    def slice(self, node: ir.Node, index: int, axis: int, ids: Ints) -> None:
        """Note that a stored operand goes with lanes."""
        self.slicings.setdefault(node, []).append(Slicing(index, axis, ids))

    def wanted(self, value: ir.Value | None, axis: int, size: int) -> Lanes | None:
        """Return the lanes of a value along an axis, fixed where nobody knows who made them."""
        if value is None:
            return None
        found = self.lanes.get(value)
        if found is None:
            dims = self.facts.dims(value)
            if dims is None or len(dims) < -axis or dims[axis] != size:
                return None
            found = Lanes(axis, self.new_ids(size), self.unknown(size))
            self.lanes[value] = found
            self.fix(value, "made-elsewhere")
        return found if (found.axis, found.size) == (axis, size) else None

    def classes(self) -> Ints:
        """Return the class of each lane number."""
        ones = [one.reshape(-1) for one, _ in self._pairs]
        others = [other.reshape(-1) for _, other in self._pairs]
        if not ones:
            return np.arange(self._count)
        rows, columns = np.concatenate(ones), np.concatenate(others)
        links = coo_array((np.ones(len(rows)), (rows, columns)), shape=(self._count, self._count))
        found: Ints = connected_components(links, directed=False)[1].astype(np.int64)
        return found
