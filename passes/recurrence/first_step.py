"""The first step that an exporter folded: with a state of zero, half of a cell is constant.

Where the values that enter a recurrence are what its cell makes of a zero state and of the
entry before those that the steps read, they are one more step of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
from structopt_onnx.passes.recurrence.operands import inputs
from structopt_onnx.passes.recurrence.readings import entry
from structopt_onnx.passes.recurrence.rules import NoForm

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.passes.recurrence.forms import Algebra, Atom, Form, Monomial
    from structopt_onnx.passes.recurrence.fused import Fused
    from structopt_onnx.passes.recurrence.rules import Row

_Place = tuple["ir.Value", int | None, int | None]
_MATRIX = 2
_TOLERANCE = 1e-6  # folding rounds to float32


@dataclass(frozen=True)
class FirstStep:
    """A step before the first slice.

    Parameters
    ----------
    hidden
        The state that it makes.
    inputs
        What it reads where the first slice reads the key.
    """

    hidden: ir.Value
    inputs: Mapping[ir.Value, ir.Value]


def with_first_step(fused: Fused, following: Mapping[ir.Value, Form]) -> Fused:
    """Return the recurrence with the step that an exporter folded, where there is one.

    Parameters
    ----------
    fused
        The recurrence without it.
    following
        State of the first slice to its form in the next step.
    """
    before = _Before(fused)
    found, algebra = fused.found, fused.algebra.algebra
    zero = frozenset(found.states)
    for state, form in following.items():
        value = found.first(state)
        node = value.producer()
        if node is None or before.facts.tensor(value) is not None:
            return fused
        try:
            row = before.row(value)
        except NoForm:
            return fused
        if len(row) != 1 or not _same(row[0], _with_zero(form, zero, algebra)):
            return fused
    if set(before.inputs_read) != set(inputs(fused.cell)):
        return fused
    hidden = found.first(fused.cell.hidden)
    return replace(fused, before=FirstStep(hidden, dict(before.inputs_read)))


class _Before(SliceAlgebra):
    """Forms of what enters the first slice, in terms of the slice's own inputs."""

    def __init__(self, fused: Fused) -> None:
        super().__init__(fused.found, fused.algebra.facts, fused.algebra.sizes)
        self._states = frozenset()  # what a state is before the first slice is the question
        self.algebra = fused.algebra.algebra
        self.inputs_read: dict[ir.Value, ir.Value] = {}
        self._later = frozenset(inputs(fused.cell))
        self._wanted: dict[_Place, ir.Value] = {}
        self._read: dict[ir.Value, _Place] = {}
        for value in inputs(fused.cell):
            known = fused.algebra.reading(value)
            if known is not None:
                first, *later = known.indices
                # After a single step the one before may have read any entry.
                index = 2 * first - later[0] if later else None
                self._wanted[known.source, known.axis, index] = value

    def _evaluate(self, value: ir.Value) -> Row:
        found = entry(value, self.sizes)
        if found is not None:
            source, axis, index, _ = found
            wanted = self._wanted.get((source, axis, None))
            stands_for = self._wanted.get((source, axis, index), wanted)
            if stands_for is not None:
                if self._read.setdefault(stands_for, found[:3]) != found[:3]:
                    raise NoForm(value.name)  # two entries where a step reads one
                self.inputs_read[stands_for] = value
                return self._opaque(stands_for)
        if value in self._later:
            raise NoForm(value.name)  # what the first slice reads is not what this step should
        return super()._evaluate(value)

    def _is_inside(self, node: ir.Node) -> bool:
        del node
        return True


def _with_zero(form: Form, zero: frozenset[ir.Value], algebra: Algebra) -> Form:
    """Put zero in the place of the states."""
    parts = []
    for monomial, coefficient in form.terms.items():
        factor = algebra.constant(np.ones(form.width if coefficient.ndim < _MATRIX else 1))
        for atom in monomial:
            factor = algebra.multiply(factor, _atom_with_zero(atom, zero, algebra))
        if coefficient.ndim == _MATRIX:
            parts.append(algebra.product(coefficient, [factor]))
        else:
            parts.append(algebra.scale(factor, coefficient))
    return algebra.add(parts)


def _atom_with_zero(atom: Atom, zero: frozenset[ir.Value], algebra: Algebra) -> Form:
    if atom.argument is None:
        gone = atom.value in zero
        return algebra.constant(np.zeros(atom.width)) if gone else algebra.atom(atom)
    argument = _with_zero(atom.argument, zero, algebra)
    return algebra.apply(atom.function, argument) if atom.function else argument


def _same(one: Form, other: Form) -> bool:
    """Whether two forms are the same function, up to the rounding of folded constants."""
    if one.width != other.width:
        return False
    terms = {m: c for m, c in other.terms.items() if np.any(c)}
    wanted = {m: c for m, c in one.terms.items() if np.any(c)}
    if len(terms) != len(wanted):
        return False
    for monomial, coefficient in wanted.items():
        match = next((m for m, c in terms.items() if _alike(monomial, coefficient, m, c)), None)
        if match is None:
            return False
        del terms[match]
    return True


def _alike(one: Monomial, c: np.ndarray, other: Monomial, d: np.ndarray) -> bool:
    if len(one) != len(other) or (c.ndim == _MATRIX) != (d.ndim == _MATRIX):
        return False
    scale = max(float(np.abs(c).max()), float(np.abs(d).max()))
    try:
        if not np.all(np.abs(c - d) <= _TOLERANCE * scale):
            return False
    except ValueError:  # not the same width
        return False
    rest = list(other)
    for atom in one:
        match = next((a for a in rest if _same_atom(atom, a)), None)
        if match is None:
            return False
        rest.remove(match)
    return True


def _same_atom(one: Atom, other: Atom) -> bool:
    if one is other:
        return True
    if one.argument is None or other.argument is None or one.function != other.function:
        return False
    return _same(one.argument, other.argument)
