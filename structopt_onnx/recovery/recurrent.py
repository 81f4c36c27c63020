"""RNN, GRU and LSTM step by step, in torch (ONNX operator specification, RNN family)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from structopt_onnx.recovery.call import Call, Inputs, Operator, given, needed

if TYPE_CHECKING:
    from collections.abc import Callable

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_LENGTHS, _STATE, _CELL, _PEEPHOLES = 4, 5, 6, 7

States = tuple[torch.Tensor, ...]


class _Direction:
    """One direction of a recurrence: its weights and how a step goes.

    Parameters
    ----------
    call, inputs
        The node.
    d
        Which direction; weights lie in this order.
    names
        Of its activations.
    """

    def __init__(self, call: Call, inputs: Inputs, d: int, names: list[str]) -> None:
        if not set(names) <= set(_ACTIVATIONS):
            raise call.refuse(f"activations {', '.join(names)}")
        self._kind, self._functions = call.op_type, [_ACTIVATIONS[name] for name in names]
        self._w, self._r = needed(inputs, 1)[d], needed(inputs, 2)[d]
        width = len(self._w)
        bias = given(inputs, 3)
        zero = self._w.new_zeros(2 * width)
        self._wb, self._rb = (zero if bias is None else bias[d]).split(width)
        peepholes = given(inputs, _PEEPHOLES) if call.op_type == "LSTM" else None
        self._peepholes = None if peepholes is None else peepholes[d].chunk(3)
        self._reset_after = bool(call.get("linear_before_reset", 0))

    def run(
        self, x: torch.Tensor, states: States, *, backwards: bool
    ) -> tuple[torch.Tensor, States]:
        """Run over x [T, N, I]; return the outputs [T, N, H] and the last states."""
        projected = x @ self._w.T + self._wb
        made: list[torch.Tensor] = []
        for t in reversed(range(len(x))) if backwards else range(len(x)):
            states = self._step(projected[t], states)
            made.append(states[0])
        return torch.stack(made[::-1] if backwards else made), states

    def _step(self, gates: torch.Tensor, states: States) -> States:
        if self._kind == "LSTM":
            return self._lstm(gates + states[0] @ self._r.T + self._rb, states[1])
        (h,) = states
        if self._kind == "RNN":
            return (self._functions[0](gates + h @ self._r.T + self._rb),)
        sigma, g = self._functions
        (xz, xr, xh), (rz, rr, rh), (bz, br, bh) = (
            t.chunk(3, dim=-1) for t in (gates, self._r.T, self._rb)
        )
        z, r = sigma(xz + h @ rz + bz), sigma(xr + h @ rr + br)
        hidden = r * (h @ rh + bh) if self._reset_after else (r * h) @ rh + bh
        return ((1 - z) * g(xh + hidden) + z * h,)

    def _lstm(self, gates: torch.Tensor, c: torch.Tensor) -> States:
        f, g, h = self._functions
        gi, go, gf, gc = gates.chunk(4, dim=-1)
        pi, po, pf = self._peepholes or (None, None, None)
        gi, gf = (gi, gf) if pi is None else (gi + pi * c, gf + pf * c)
        c = f(gf) * c + f(gi) * g(gc)
        return f(go if po is None else go + po * c) * h(c), c


def _recurrent(call: Call, inputs: Inputs) -> list[torch.Tensor]:
    x, lengths = needed(inputs), given(inputs, _LENGTHS)
    if lengths is not None and bool((lengths != len(x)).any()):
        raise call.refuse("sequence_lens that differ")
    if call.get("clip") or call.get("input_forget") or call.get("layout", 0):
        raise call.refuse("clip, input_forget or layout 1")
    directions, hidden = len(needed(inputs, 1)), needed(inputs, 2).shape[-1]
    per = len(_DEFAULTS[call.op_type])
    names = call.get("activations") or _DEFAULTS[call.op_type] * directions
    if call.get("activation_alpha") or call.get("activation_beta"):
        raise call.refuse("activations with parameters")
    zero = x.new_zeros(directions, x.shape[1], hidden)
    starts = [given(inputs, k) for k in ((_STATE, _CELL) if call.op_type == "LSTM" else (_STATE,))]
    outputs, lasts = [], []
    for d in range(directions):
        one = _Direction(call, inputs, d, list(names[d * per : (d + 1) * per]))
        first = tuple((zero if start is None else start)[d] for start in starts)
        backwards = d == 1 or call.get("direction", "forward") == "reverse"
        made, last = one.run(x, first, backwards=backwards)
        outputs.append(made)
        lasts.append(last)
    return [
        torch.stack(outputs, dim=1),
        *(torch.stack(states) for states in zip(*lasts, strict=True)),
    ]


RECURRENT: dict[str, Operator] = dict.fromkeys(_GATES, _recurrent)
"""By the name of the ONNX operator."""
