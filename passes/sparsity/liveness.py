"""Which lanes nobody needs, and why others that look dead stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.sparsity.lanes import Cut, Ints, Mask, Read

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.sparsity.lanes import Lanes, Table

Merges = dict[Read, tuple[tuple[int, int, float], ...]]


@dataclass(frozen=True, eq=False)
class Blocked:
    """Lanes that look dead and stay.

    Parameters
    ----------
    node
        What makes them.
    code
        Why they stay.
    channels
        Their positions.
    """

    node: ir.Node
    code: str
    channels: Ints


class Liveness:
    """What can be cut in a scope.

    Attributes
    ----------
    cut
        The lanes that go.
    blocked
        Those that look dead and stay.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._classes = table.classes()
        count = int(self._classes.max(initial=-1)) + 1
        self._needed = np.zeros(count, bool)
        self._codes: dict[int, str] = {}
        for ids, code in table.fixed:
            self._need(self._classes[ids], code)
        for read in table.reads:
            self._need(self._classes[read.lanes.ids][~read.free], "")
        doubles = self._doubles()
        self._needed[doubles] = False
        self._keep_one()
        lost = ~self._needed[self._classes]
        self.cut = Cut(lost, {r: m for r in table.reads if (m := self._merged(r, doubles))})
        self.blocked = self._blocked()

    def _need(self, classes: Ints, code: str) -> None:
        self._needed[classes] = True
        if code:
            for number in np.unique(classes):
                self._codes.setdefault(int(number), code)

    def _partners(self, lanes: Lanes, allowed: Mask) -> Ints:
        """Return for each lane the first allowed one that it is a multiple of, or -1."""
        partners = np.full(lanes.size, -1)
        usable = allowed & (lanes.held.factors != 0)
        places = np.flatnonzero(usable)
        symbols, first = np.unique(lanes.held.symbols[places], return_index=True)
        at = np.searchsorted(symbols, lanes.held.symbols)
        found = at < len(symbols)
        found[found] = symbols[at[found]] == lanes.held.symbols[found]
        partners[found] = places[first[at[found]]]
        return partners

    def _doubles(self) -> Ints:
        """Return the needed classes whose weights can all be added to those of others."""
        able = self._needed.copy()
        able[list(self._codes)] = False
        rivals: list[tuple[Ints, Ints]] = []
        for read in self._table.reads:
            classes = self._classes[read.lanes.ids]
            partners = self._partners(read.lanes, self._needed[classes])
            alone = (partners < 0) | (classes[partners] == classes) | (not read.merges)
            alone &= ~read.free
            able[classes[alone]] = False
            rest = ~alone & ~read.free
            rivals.append((classes[rest], classes[partners[rest]]))
        changed = True
        while changed:
            changed = False
            for classes, partners in rivals:
                clash = able[classes] & able[partners]
                if clash.any():
                    able[classes[clash]] = False
                    changed = True
        return np.flatnonzero(able)

    def _merged(self, read: Read, doubles: Ints) -> tuple[tuple[int, int, float], ...]:
        classes = self._classes[read.lanes.ids]
        going = np.isin(classes, doubles) & ~self._needed[classes] & ~read.free
        if not going.any():
            return ()
        partners = self._partners(read.lanes, self._needed[classes])
        factors = read.lanes.held.factors
        return tuple(
            (int(k), int(partners[k]), float(factors[k] / factors[partners[k]]))
            for k in np.flatnonzero(going)
        )

    def _keep_one(self) -> None:
        """Keep a lane of every value."""
        changed = True
        while changed:
            changed = False
            for lanes in self._table.lanes.values():
                classes = self._classes[lanes.ids]
                if lanes.size and not self._needed[classes].any():
                    self._need(classes[:1], "last-channel")
                    changed = True

    def _blocked(self) -> list[Blocked]:
        """Explain the lanes that a stored weight makes constant or twice, or reads for nothing."""
        found: list[Blocked] = []
        bound = np.zeros(len(self._needed), bool)
        for ids in self._table.blocks:
            bound[self._classes[ids]] = True
        read_codes: dict[int, str] = {
            int(number): "padded-constant"
            for ids in self._table.padded
            for number in self._classes[ids]
        }
        for read in self._table.reads:
            constant = read.lanes.held.constant & ~read.free
            for number in self._classes[read.lanes.ids[constant]]:
                read_codes.setdefault(int(number), read.code)
        seen: list[tuple[ir.Node, Lanes, Mask]] = []
        for node in self._table.makers:
            lanes = self._table.lanes[node.outputs[0]]
            seen.append((node, lanes, lanes.held.constant))
            coded = np.array([int(n) in self._codes for n in self._of(lanes)], bool)
            seen.append((node, lanes, _repeated(lanes.held.symbols) & coded & ~lanes.held.constant))
        for read in self._table.reads:
            last = [self._codes.get(int(n)) == "last-channel" for n in self._of(read.lanes)]
            seen.append((read.node, read.lanes, read.free & (bound[self._of(read.lanes)] | last)))
        for node, lanes, dead in seen:
            classes = self._of(lanes)
            places = np.flatnonzero(dead & self._needed[classes])
            codes: dict[str, list[int]] = {}
            for place in places:
                number = int(classes[place])
                code = self._codes.get(number) or read_codes.get(number)
                code = code or ("partial-group" if bound[number] else "operands-disagree")
                codes.setdefault(code, []).append(int(place))
            found += [Blocked(node, code, np.array(where)) for code, where in codes.items()]
        return found

    def _of(self, lanes: Lanes) -> Ints:
        classes: Ints = self._classes[lanes.ids]
        return classes


def _repeated(symbols: Ints) -> Mask:
    """Return which lanes have the symbol of an earlier one."""
    repeated = np.ones(len(symbols), bool)
    repeated[np.unique(symbols, return_index=True)[1]] = False
    return repeated
