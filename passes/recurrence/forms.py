"""Forms: what one step of a recurrence computes, as sums of products of atoms.

A form has a width (features) and terms: a product of atoms (a monomial) to a coefficient. A
coefficient is a matrix [width, features of the product], or a diagonal: one number per feature,
or one for all. The empty product is the bias. Atoms are interned: equal atoms are one object.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import onnx_ir as ir

_MOST_TERMS = 16
_MATRIX = 2


@dataclass(frozen=True, eq=False)
class Atom:
    """What a form is made of.

    Parameters
    ----------
    number
        Order in which it was first met.
    width
        Features.
    value, start
        Features ``start : start + width`` of a value that is taken as it is.
    function, argument
        Or a function of a form, feature by feature; function ``()`` keeps a form together that
        is not to be multiplied out.
    """

    number: int
    width: int
    value: ir.Value | None = None
    start: int = 0
    function: tuple[object, ...] = ()
    argument: Form | None = None


Monomial = tuple[Atom, ...]


@dataclass(frozen=True, eq=False)
class Form:
    """A sum of products of atoms with coefficients."""

    width: int
    terms: Mapping[Monomial, np.ndarray]

    @property
    def is_linear(self) -> bool:
        """Whether a coefficient is a matrix."""
        return any(coefficient.ndim == _MATRIX for coefficient in self.terms.values())

    @property
    def is_constant(self) -> bool:
        """Whether there is nothing but a bias."""
        return all(not monomial for monomial in self.terms)

    def single(self) -> Atom | None:
        """Return the atom that the form is, where it is one."""
        if len(self.terms) != 1:
            return None
        ((monomial, coefficient),) = self.terms.items()
        return monomial[0] if len(monomial) == 1 and is_one(coefficient) else None


def is_one(coefficient: np.ndarray, number: float = 1.0) -> bool:
    """Whether a coefficient is this number, for every feature."""
    return coefficient.ndim < _MATRIX and bool(np.all(coefficient == number))


def key(form: Form) -> tuple[object, ...]:
    """Return what equal forms have in common: atoms and the bytes of the coefficients."""
    terms = [
        (tuple(atom.number for atom in monomial), c.shape, _digest(c))
        for monomial, c in form.terms.items()
    ]
    return form.width, tuple(sorted(terms))


def _digest(array: np.ndarray) -> bytes:
    plain = np.ascontiguousarray(array, np.float64)
    return hashlib.blake2b(plain.tobytes(), digest_size=16).digest()


class Algebra:
    """Arithmetic on forms; keeps the atoms."""

    def __init__(self) -> None:
        self._atoms: dict[tuple[object, ...], Atom] = {}

    def opaque(self, value: ir.Value, start: int, width: int) -> Atom:
        """Return the atom of some features of a value."""
        return self._intern(("value", value, start, width), width, value=value, start=start)

    def applied(self, function: tuple[object, ...], argument: Form) -> Atom:
        """Return the atom of a function of a form."""
        found = ("function", function, key(argument))
        return self._intern(found, argument.width, function=function, argument=argument)

    def _intern(self, found: tuple[object, ...], width: int, **what: object) -> Atom:
        if found not in self._atoms:
            self._atoms[found] = Atom(len(self._atoms), width, **what)  # type: ignore[arg-type]  # by keyword, as declared
        return self._atoms[found]

    @staticmethod
    def atom(atom: Atom) -> Form:
        """Return an atom as a form."""
        return Form(atom.width, {(atom,): np.ones(())})

    @staticmethod
    def constant(numbers: np.ndarray) -> Form:
        """Return a bias as a form."""
        return Form(numbers.shape[0], {(): numbers.astype(np.float64)})

    def add(self, forms: Iterable[Form]) -> Form:
        """Return the sum of forms of one width."""
        terms: dict[Monomial, np.ndarray] = {}
        width = 1
        for form in forms:
            width = max(width, form.width)
            for monomial, coefficient in form.terms.items():
                known = terms.get(monomial)
                terms[monomial] = coefficient if known is None else _plus(known, coefficient)
        return Form(width, {m: c for m, c in terms.items() if not m or np.any(c)})

    def scale(self, form: Form, factor: np.ndarray) -> Form:
        """Multiply each feature by a number of its own, or all by one."""
        rows = factor[:, None] if factor.ndim and factor.shape[0] > 1 else factor.reshape(())
        terms = {
            monomial: c * rows if c.ndim == _MATRIX else c * (rows if rows.ndim == 0 else factor)
            for monomial, c in form.terms.items()
        }
        return Form(max(form.width, factor.shape[0] if factor.ndim else 1), terms)

    def multiply(self, one: Form, other: Form) -> Form:
        """Return the product, feature by feature; multiplied out where that stays small."""
        for constant, form in ((one, other), (other, one)):
            if constant.is_constant:
                return self.scale(form, constant.terms.get((), np.zeros(())))
        if len(one.terms) * len(other.terms) > _MOST_TERMS:
            one, other = self.kept(one), self.kept(other)
        one, other = (self.kept(f) if f.is_linear else f for f in (one, other))
        products = [
            Form(one.width, {tuple(sorted((*m, *n), key=lambda a: a.number)): c * d})
            for m, c in one.terms.items()
            for n, d in other.terms.items()
        ]
        return self.add(products)

    def kept(self, form: Form) -> Form:
        """Return a form as one atom, not to be multiplied out."""
        return self.atom(self.applied((), form)) if form.single() is None else form

    def apply(self, function: tuple[object, ...], form: Form) -> Form:
        """Return a function of a form, feature by feature."""
        return self.atom(self.applied(function, form))

    def product(self, weight: np.ndarray, blocks: Iterable[Form]) -> Form:
        """Return a matrix [width, features] times the features of some forms in a row."""
        parts, column = [], 0
        for block in blocks:
            columns = weight[:, column : column + block.width]
            column += block.width
            form = self.kept(block) if block.is_linear else block
            terms: dict[Monomial, np.ndarray] = {}
            for monomial, c in form.terms.items():
                if not monomial:
                    numbers = np.broadcast_to(c, (form.width,))
                    terms[monomial] = columns.astype(np.float64) @ numbers
                else:
                    terms[monomial] = columns if is_one(c) else columns * c
            parts.append(Form(weight.shape[0], terms))
        return self.add(parts)

    def part(self, form: Form, start: int, stop: int) -> Form:
        """Return features ``start : stop`` of a form."""
        if (start, stop) == (0, form.width):
            return form
        terms: dict[Monomial, np.ndarray] = {}
        for monomial, c in form.terms.items():
            if c.ndim == _MATRIX:
                terms[monomial] = c[start:stop]
            else:
                atoms = (self._part_of_atom(atom, start, stop) for atom in monomial)
                cut = tuple(sorted(atoms, key=lambda a: a.number))
                terms[cut] = c[start:stop] if c.ndim and c.shape[0] > 1 else c
        return Form(stop - start, terms)

    def _part_of_atom(self, atom: Atom, start: int, stop: int) -> Atom:
        if atom.value is not None:
            return self.opaque(atom.value, atom.start + start, stop - start)
        if atom.argument is None:  # an atom is one or the other
            raise ValueError(atom)
        return self.applied(atom.function, self.part(atom.argument, start, stop))


def _plus(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.ndim == other.ndim or max(one.ndim, other.ndim) < _MATRIX:
        added: np.ndarray = one + other
        return added
    matrix, diagonal = (one, other) if one.ndim == _MATRIX else (other, one)
    total: np.ndarray = matrix + np.diag(np.broadcast_to(diagonal, matrix.shape[:1]))
    return total
