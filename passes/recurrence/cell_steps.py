"""One step of RNN, GRU and LSTM as nodes, after the equations of the ONNX operators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from structopt_onnx.model.edit import Fresh, Operand
    from structopt_onnx.passes.recurrence.activations import Activation
    from structopt_onnx.passes.recurrence.subgraph import Subgraph

Matrix = npt.NDArray[np.float64]
# Gemm needs its third input before this opset.
_GEMM_WITHOUT_C = 11


@dataclass(frozen=True, eq=False)
class Direction:
    """What one direction of a node computes with.

    Parameters
    ----------
    op_type
        RNN, GRU or LSTM.
    input_weight, recurrent_weight
        W of [G H, I] and R of [G H, H].
    input_bias, recurrent_bias
        The halves of B, [G H] each; zeros where the node has none.
    peepholes
        P of [3, H] in the order i, o, f; None without.
    activations
        One for RNN, two for GRU, three for LSTM.
    reset_after
        GRU's ``linear_before_reset``.
    reverse
        Whether it runs from the last step to the first.
    """

    op_type: str
    input_weight: Matrix
    recurrent_weight: Matrix
    input_bias: Matrix
    recurrent_bias: Matrix
    peepholes: Matrix | None
    activations: tuple[Activation, ...]
    reset_after: bool
    reverse: bool

    @property
    def hidden(self) -> int:
        """Size of the state."""
        return int(self.recurrent_weight.shape[1])


@dataclass(frozen=True)
class Unrolled:
    """The steps of one direction: h at every step in order of time, the last h and c, [N, H]."""

    outputs: list[Operand]
    last_h: Operand
    last_c: Operand


class Cells:
    """Writes the steps of one direction into a graph.

    Parameters
    ----------
    graph
        Where the nodes go.
    direction
        What to compute.
    label
        Goes before the names.
    opset
        Version of the default domain.
    """

    def __init__(self, graph: Subgraph, direction: Direction, label: str, opset: int) -> None:
        self._graph = graph
        self._of = direction
        self._label = label
        self._opset = opset
        hidden = direction.hidden
        # GRU's candidate gets its state apart from the gates; the others get all at once.
        gates = 2 * hidden if direction.op_type == "GRU" else len(direction.recurrent_weight)
        self._parts = [slice(0, gates)]
        if direction.op_type == "GRU":
            self._parts.append(slice(gates, 3 * hidden))
        self._recurrent = [
            graph.constant(direction.recurrent_weight[rows], f"{label}_R") for rows in self._parts
        ]
        peepholes = direction.peepholes
        self._peepholes = None
        if peepholes is not None:
            self._peepholes = [graph.constant(row, f"{label}_P") for row in peepholes]
        self._zeros: dict[int, Fresh] = {}
        self._candidate_bias: Fresh | None = None
        if direction.reset_after and direction.recurrent_bias[2 * hidden :].any():
            bias = direction.recurrent_bias[2 * hidden :]
            self._candidate_bias = graph.constant(bias, f"{label}_Rb")

    def unroll(self, x: Operand, steps: int, h: Operand, c: Operand) -> Unrolled:
        """Write all steps.

        Parameters
        ----------
        x
            The sequence, [steps N, I].
        steps
            Its length.
        h, c
            Initial states, [N, H]; None for zeros.
        """
        streams = [self._stream(x, rows, steps) for rows in self._parts]
        order = range(steps)[:: -1 if self._of.reverse else 1]
        step = {"RNN": self._rnn, "GRU": self._gru, "LSTM": self._lstm}[self._of.op_type]
        outputs: list[Operand] = [None] * steps
        for t in order:
            h, c = step([stream[t] for stream in streams], h, c, f"{self._label}_{t}")
            outputs[t] = h
        return Unrolled(outputs, h, c)

    def _stream(self, x: Operand, rows: slice, steps: int) -> tuple[Operand, ...]:
        """Return ``W x + b`` of each step, one product for all of them."""
        of = self._of
        bias = of.input_bias[rows].copy()
        if not (of.reset_after and rows.start):
            bias += of.recurrent_bias[rows]
        weight = self._graph.constant(of.input_weight[rows], f"{self._label}_W")
        added = self._graph.constant(bias, f"{self._label}_b") if bias.any() else None
        product = self._gemm(x, weight, added, bias.size, f"{self._label}_Wx")
        return self._graph.split(product, steps, axis=0, name=f"{self._label}_Wx")

    def _gemm(self, x: Operand, weight: Fresh, bias: Fresh | None, size: int, name: str) -> Fresh:
        if bias is None and self._opset < _GEMM_WITHOUT_C:
            if size not in self._zeros:
                self._zeros[size] = self._graph.constant(np.zeros(size), f"{self._label}_0")
            bias = self._zeros[size]
        inputs = (x, weight) if bias is None else (x, weight, bias)
        return self._graph.add("Gemm", *inputs, name=name, transB=1)

    def _with_state(self, stream: Operand, h: Operand, part: int, name: str) -> Operand:
        """Return ``W x + R h``."""
        if h is None:
            return stream
        rows = self._parts[part]
        product = self._gemm(h, self._recurrent[part], None, rows.stop - rows.start, f"{name}_Rh")
        return self._graph.add("Add", stream, product, name=f"{name}_sum")

    def _activate(self, which: int, value: Operand, name: str) -> Fresh:
        return self._of.activations[which].apply(self._graph, value, name)

    def _rnn(self, streams: list[Operand], h: Operand, c: Operand, name: str) -> tuple[Fresh, None]:
        del c
        return self._activate(0, self._with_state(streams[0], h, 0, name), f"{name}_h"), None

    def _gru(self, streams: list[Operand], h: Operand, c: Operand, name: str) -> tuple[Fresh, None]:
        del c
        add = self._graph.add
        gates = self._activate(0, self._with_state(streams[0], h, 0, name), f"{name}_zr")
        z, r = self._graph.split(gates, 2, axis=1, name=f"{name}_zr")
        state: Operand = None
        if self._of.reset_after:
            state = self._candidate_bias
            if h is not None:
                bias, size = self._candidate_bias, self._of.hidden
                state = self._gemm(h, self._recurrent[1], bias, size, f"{name}_Rh")
            state = None if state is None else add("Mul", r, state, name=f"{name}_reset")
        elif h is not None:
            reset = add("Mul", r, h, name=f"{name}_reset")
            state = self._gemm(reset, self._recurrent[1], None, self._of.hidden, f"{name}_Rh")
        total = streams[1]
        if state is not None:
            total = add("Add", total, state, name=f"{name}_sum")
        candidate = self._activate(1, total, f"{name}_n")
        # (1 - z) n + z h, with a product less.
        if h is None:
            kept = add("Mul", z, candidate, name=f"{name}_kept")
            return add("Sub", candidate, kept, name=f"{name}_h"), None
        away = add("Sub", h, candidate, name=f"{name}_away")
        kept = add("Mul", z, away, name=f"{name}_kept")
        return add("Add", candidate, kept, name=f"{name}_h"), None

    def _lstm(
        self, streams: list[Operand], h: Operand, c: Operand, name: str
    ) -> tuple[Fresh, Fresh]:
        add = self._graph.add
        total = self._with_state(streams[0], h, 0, name)
        i, o, f, g = self._graph.split(total, 4, axis=1, name=f"{name}_iofc")
        update = add(
            "Mul",
            self._activate(0, self._peep(0, i, c, name), f"{name}_i"),
            self._activate(1, g, f"{name}_c"),
            name=f"{name}_update",
        )
        state = update
        if c is not None:
            forget = self._activate(0, self._peep(2, f, c, name), f"{name}_f")
            kept = add("Mul", forget, c, name=f"{name}_kept")
            state = add("Add", kept, update, name=f"{name}_C")
        shown = self._activate(2, state, f"{name}_shown")
        output = self._activate(0, self._peep(1, o, state, name), f"{name}_o")
        return add("Mul", output, shown, name=f"{name}_h"), state

    def _peep(self, which: int, gate: Operand, c: Operand, name: str) -> Operand:
        if self._peepholes is None or c is None:
            return gate
        product = self._graph.add("Mul", self._peepholes[which], c, name=f"{name}_peep")
        return self._graph.add("Add", gate, product, name=f"{name}_gate")
