"""Cells: the algebra of a slice as the cell of ONNX's RNN, GRU or LSTM.

The equations are those of the ONNX operator specifications (RNN, GRU, LSTM, opset 7 and later).
Gates are told apart by what the forms do with them, never by names or by order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.passes.recurrence.forms import Atom, Form, Monomial, is_one, key
from structopt_onnx.passes.recurrence.gates import Activation, Gate, States, activation, gate

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.passes.recurrence.gates import Function

_MATRIX = 2
_PAIR = 2


@dataclass(frozen=True)
class Cell:
    """A cell of ONNX's recurrent operators.

    Parameters
    ----------
    op_type
        RNN, GRU or LSTM.
    gates
        In the operator's order: RNN i; GRU z, r, h; LSTM i, o, f, c.
    activations
        In the operator's order: RNN f; GRU f, g; LSTM f, g, h.
    hidden, cell
        The states, as the first slice reads them.
    recurrent_bias
        Of GRU's h gate, inside the product with the reset gate (linear_before_reset = 1).
    """

    op_type: str
    gates: tuple[Gate, ...]
    activations: tuple[Activation, ...]
    hidden: ir.Value
    cell: ir.Value | None = None
    recurrent_bias: np.ndarray | None = None

    @property
    def width(self) -> int:
        """The hidden size."""
        return len(self.gates[0].bias)


def cell(states: States) -> Cell | None:
    """Recognise the cell that turns states into the next ones; None for any other.

    Parameters
    ----------
    states
        Forms of the next states.
    """
    if len(states.next) == 1:
        ((hidden, form),) = states.next.items()
        return _rnn(states, hidden, form) or _gru(states, hidden, form)
    if len(states.next) == _PAIR:
        one, other = states.next
        return _lstm(states, one, other) or _lstm(states, other, one)
    return None


def is_projected(states: States) -> bool:
    """Whether an LSTM hands on a projection of its output, which ONNX's LSTM can't."""
    for hidden, form in states.next.items():
        rest = [f for state, f in states.next.items() if state is not hidden]
        for monomial, coefficient in form.terms.items():
            if coefficient.ndim == _MATRIX and len(monomial) == _PAIR and len(rest) == 1:
                arguments = [atom.argument for atom in monomial if atom.argument is not None]
                if any(key(argument) == key(rest[0]) for argument in arguments):
                    return True
    return False


def _rnn(states: States, hidden: ir.Value, form: Form) -> Cell | None:
    atom = form.single()
    function: Function = () if atom is None else atom.function
    argument = form if atom is None or atom.argument is None else atom.argument
    only, known = gate(states, function, argument, hidden), activation(function)
    if only is None or known is None or not only.recurrent.any():
        return None
    return Cell("RNN", (only,), (known,), hidden)


def _gru(states: States, hidden: ir.Value, form: Form) -> Cell | None:
    """H' = z h + (1 - z) n, or with 1 - z in the place of z."""
    by_size = sorted(form.terms.items(), key=lambda item: len(item[0]))
    if [len(monomial) for monomial, _ in by_size] != [1, 2, 2]:
        return None
    ((alone,), one), *products = by_size
    if not is_one(one):
        return None
    plus = next((m for m, c in products if is_one(c)), None)
    minus = next((m for m, c in products if is_one(c, -1.0)), None)
    update = _other(minus or (), alone)
    partner = _other(plus or (), update)
    if update is None or partner is None:
        return None
    inverse = _is_whole(alone, hidden, form.width)  # h + z (n - h) instead of n + z (h - n)
    new, state = (partner, alone) if inverse else (alone, partner)
    if not _is_whole(state, hidden, form.width):
        return None
    z = gate(states, update.function, update.argument, hidden)
    if z is None or (inverse and update.function != ("Sigmoid",)):
        return None
    z = z.negated() if inverse else z
    return _gru_with_reset(states, hidden, z, new)


def _gru_with_reset(states: States, hidden: ir.Value, z: Gate, new: Atom) -> Cell | None:
    if new.argument is None:
        return None
    rest, product = {}, None
    for monomial, coefficient in new.argument.terms.items():
        if len(monomial) == _PAIR:
            if product is not None:
                return None
            product = (monomial, coefficient)
        else:
            rest[monomial] = coefficient
    n = gate(states, new.function, Form(new.width, rest), hidden)
    if product is None or n is None or n.recurrent.any():
        return None
    monomial, coefficient = product
    activations = activation(z.function), activation(new.function)
    for reset, factor in (monomial, monomial[::-1]):
        r = gate(states, reset.function, reset.argument, hidden) if reset.function else None
        if r is None or r.function != z.function or None in activations:
            continue
        known = tuple(a for a in activations if a is not None)
        if coefficient.ndim == _MATRIX and _is_whole(factor, hidden, z.bias.shape[0]):
            n.recurrent = coefficient
            return Cell("GRU", (z, r, n), known, hidden)
        inner = gate(states, (), factor.argument, hidden) if not factor.function else None
        if is_one(coefficient) and inner is not None and not inner.inputs:
            n.recurrent = inner.recurrent
            return Cell("GRU", (z, r, n), known, hidden, recurrent_bias=inner.bias)
    return None


def _lstm(states: States, hidden: ir.Value, cell_state: ir.Value) -> Cell | None:
    """C' = f c + i g; h' = o act(c')."""
    following = states.next[cell_state]
    width = following.width
    if len(following.terms) != _PAIR or not all(is_one(c) for c in following.terms.values()):
        return None
    kept = next((m for m in following.terms if _holds(m, cell_state, width)), None)
    added = next((m for m in following.terms if m is not kept), None)
    if kept is None or added is None or len(added) != _PAIR:
        return None
    forget = next((a for a in kept if a.value is not cell_state), None)
    output = _output_gate(states.next[hidden], following)
    if forget is None or output is None:
        return None
    out, squash = output
    hidden_form = _without_peephole(out.argument, following)
    if hidden_form is None:
        return None
    o = gate(states, out.function, hidden_form[0], hidden)
    f = gate(states, forget.function, forget.argument, hidden, cell_state)
    for entry, candidate in (added, added[::-1]):
        i = gate(states, entry.function, entry.argument, hidden, cell_state)
        g = gate(states, candidate.function, candidate.argument, hidden)
        found = [activation(a) for a in (forget.function, candidate.function, squash)]
        if i is None or g is None or f is None or o is None or None in found:
            continue
        if entry.function != forget.function or out.function != forget.function:
            continue
        o.peephole = hidden_form[1]
        known = tuple(a for a in found if a is not None)
        return Cell("LSTM", (i, o, f, g), known, hidden, cell_state)
    return None


def _output_gate(form: Form, following: Form) -> tuple[Atom, Function] | None:
    """Return o and the activation of h' = o act(c')."""
    if len(form.terms) != 1:
        return None
    ((monomial, coefficient),) = form.terms.items()
    if len(monomial) != _PAIR or not is_one(coefficient):
        return None
    for out, squashed in (monomial, monomial[::-1]):
        argument = squashed.argument
        if argument is not None and squashed.function and key(argument) == key(following):
            return out, squashed.function
    return None


def _without_peephole(form: Form | None, following: Form) -> tuple[Form, np.ndarray | None] | None:
    """Take p c' out of the output gate's argument."""
    if form is None:
        return None
    shared = [m for m in form.terms if m in following.terms]
    if not shared:
        return form, None
    weights = [form.terms[m] for m in shared]
    same = all(w.ndim < _MATRIX and np.array_equal(w, weights[0]) for w in weights)
    if len(shared) < len(following.terms) or not same:
        return None
    rest: dict[Monomial, np.ndarray] = {m: c for m, c in form.terms.items() if m not in shared}
    return Form(form.width, rest), np.broadcast_to(weights[0], (form.width,))


def _is_whole(atom: Atom, value: ir.Value, width: int) -> bool:
    return atom.value is value and atom.start == 0 and atom.width == width


def _holds(monomial: Monomial, value: ir.Value, width: int) -> bool:
    return len(monomial) == _PAIR and any(_is_whole(a, value, width) for a in monomial)


def _other(monomial: Monomial, *atoms: Atom | None) -> Atom | None:
    """Return the factor of a product that is none of the atoms."""
    rest = [a for a in monomial if all(a is not b for b in atoms)]
    return rest[0] if len(rest) == 1 else None
