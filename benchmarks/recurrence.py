"""Recurrences written out step by step: as they are, optimized, and as ONNX's own operator.

    python benchmarks/recurrence.py
    python benchmarks/recurrence.py --cell LSTM --length 50 --length 1000
    python benchmarks/recurrence.py --plot docs/recurrence.png

An exporter that follows a loop over a cell writes every step out. Here this is done node by node,
in the gate order of torch's cells, with both products of a step in Gemms of their own; the
operator (RNN, GRU, LSTM) has the same weights, seeded, in ONNX's order. Batch 1; all steps' states
are handed out. Times are those of the paired benchmark on one thread: the optimized model over the
one written out, and over the operator, each pair in one process. The difference is the largest of
the outputs over their largest value, with onnxruntime's own optimizations off.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import onnx
from pairs import Net, difference, interval, short, where

import structopt_onnx as so

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FEATURES, HIDDEN = 64, 128
LENGTHS = (10, 50, 200)
LONG = ("LSTM", 1000)  # onnxruntime takes many seconds to open one of this length
FORMS = ("written out", "optimized", "operator")
COLUMNS = (
    "cell",
    "steps",
    "nodes",
    "bytes",
    "session creation, ms",
    "p50, ms",
    "optimized over written out",
    "optimized over operator",
    "optimizing, s",
    "difference",
)


@dataclass(frozen=True)
class Cell:
    """Weights of a cell, gates in torch's order.

    Attributes
    ----------
    gates
        How many rows of `HIDDEN` the weights have.
    order
        Where ONNX's gates are among torch's.
    step
        Writes what a step makes of both products and its states, and returns the next states; the
        first is handed out.
    states
        How many there are.
    attributes
        Of ONNX's operator.
    """

    gates: int
    order: tuple[int, ...]
    step: Callable[[Net, str, str, list[str]], list[str]]
    states: int
    attributes: dict[str, int]

    def weights(self) -> list[np.ndarray]:
        """Return the weights of input and state, and both biases, uniform as torch's are."""
        rng, rows, reach = np.random.default_rng(0), self.gates * HIDDEN, HIDDEN**-0.5
        return [
            rng.uniform(-reach, reach, shape)
            for shape in ((rows, FEATURES), (rows, HIDDEN), (rows,), (rows,))
        ]


def rnn_step(net: Net, of_input: str, of_state: str, states: list[str]) -> list[str]:
    """Write an Elman cell."""
    del states
    return [net.add("Tanh", net.add("Add", of_input, of_state))]


def gru_step(net: Net, of_input: str, of_state: str, states: list[str]) -> list[str]:
    """Write a GRU whose reset gate is applied after the product."""
    (h,) = states
    xr, xz, xn = net.split("Split", of_input, outputs=3, axis=1, num_outputs=3)
    hr, hz, hn = net.split("Split", of_state, outputs=3, axis=1, num_outputs=3)
    r, z = (net.add("Sigmoid", net.add("Add", a, b)) for a, b in ((xr, hr), (xz, hz)))
    n = net.add("Tanh", net.add("Add", xn, net.add("Mul", r, hn)))
    return [net.add("Add", n, net.add("Mul", z, net.add("Sub", h, n)))]


def lstm_step(net: Net, of_input: str, of_state: str, states: list[str]) -> list[str]:
    """Write an LSTM."""
    sums = net.add("Add", of_input, of_state)
    i, f, g, o = net.split("Split", sums, outputs=4, axis=1, num_outputs=4)
    i, f, o = (net.add("Sigmoid", gate) for gate in (i, f, o))
    kept = net.add("Mul", f, states[1])
    c = net.add("Add", kept, net.add("Mul", i, net.add("Tanh", g)))
    return [net.add("Mul", o, net.add("Tanh", c)), c]


CELLS = {
    "RNN": Cell(1, (0,), rnn_step, 1, {}),
    "GRU": Cell(3, (1, 0, 2), gru_step, 1, {"linear_before_reset": 1}),
    "LSTM": Cell(4, (0, 3, 1, 2), lstm_step, 2, {}),
}


def written_out(cell: Cell, length: int) -> onnx.ModelProto:
    """Write a model with a cell at each step."""
    net = Net((length, 1, FEATURES))
    w, r, wb, rb = (net.stored(array) for array in cell.weights())
    states = [net.stored(np.zeros((1, HIDDEN)))] * cell.states
    front = net.stored(np.array([0]))
    handed_out = []
    for t in range(length):
        x = net.add("Gather", net.x, net.stored(np.array(t)), axis=0)
        of_input = net.add("Gemm", x, w, wb, transB=1)
        of_state = net.add("Gemm", states[0], r, rb, transB=1)
        states = cell.step(net, of_input, of_state, states)
        handed_out.append(net.add("Unsqueeze", states[0], front))
    return net.proto(net.add("Concat", *handed_out, axis=0))


def operator(name: str, length: int) -> onnx.ModelProto:
    """Write a model with ONNX's operator, and the axis of directions taken out."""
    cell, net = CELLS[name], Net((length, 1, FEATURES))
    w, r, wb, rb = (
        array.reshape(cell.gates, HIDDEN, -1)[list(cell.order)].reshape(1, *array.shape)
        for array in cell.weights()
    )
    inputs = [net.stored(array) for array in (w, r, np.concatenate([wb, rb], axis=1))]
    y = net.add(name, net.x, *inputs, hidden_size=HIDDEN, **cell.attributes)
    return net.proto(net.add("Squeeze", y, net.stored(np.array([1]))))


@dataclass(frozen=True)
class Row:
    """One cell at one length, in all forms."""

    cell: str
    length: int
    nodes: tuple[int, ...]
    seconds: float
    difference: float
    by_steps: so.Comparison
    by_operator: so.Comparison

    def timings(self) -> list[so.Timing]:
        """Return what was measured of the forms; of the optimized one beside that written out."""
        return [self.by_steps.a, self.by_steps.b, self.by_operator.a]

    def cells(self) -> list[str]:
        """Write it for the table."""
        timings = self.timings()
        return [
            self.cell,
            str(self.length),
            " / ".join(f"{n:,}" for n in self.nodes),
            " / ".join(f"{t.file_bytes:,}" for t in timings),
            " / ".join(short(t.session_creation_ms) for t in timings),
            " / ".join(short(t.p50) for t in timings),
            interval(self.by_steps),
            interval(self.by_operator),
            f"{self.seconds:.1f}",
            f"{self.difference:.1e}",
        ]


def measure(name: str, length: int, work: Path) -> Row:
    """Write, optimize and measure one cell at one length."""
    paths = [work / f"{name}_{length}_{k}.onnx" for k in range(len(FORMS))]
    onnx.save(written_out(CELLS[name], length), paths[0])
    onnx.save(operator(name, length), paths[2])
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((length, 1, FEATURES)).astype(np.float32)} for _ in range(2)]
    report = so.optimize(paths[0], paths[1], calibration=feeds, benchmark=False).report
    return Row(
        name,
        length,
        tuple(len(onnx.load(path).graph.node) for path in paths),
        sum(report.seconds.values()),
        difference(paths[0], paths[1], feeds),
        so.benchmark(paths[0], paths[1], data=feeds, seconds=max(15.0, 0.25 * length)),
        so.benchmark(paths[2], paths[1], data=feeds, seconds=15.0),
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw time and session creation over the length, a column a cell."""
    names = list(dict.fromkeys(row.cell for row in rows))
    what = {"time of one run, ms": "p50", "session creation, ms": "session_creation_ms"}
    figure, axes = plt.subplots(
        2,
        len(names),
        figsize=(3.4 * len(names), 5.4),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    for column, name in enumerate(names):
        mine = [row for row in rows if row.cell == name]
        lengths = [row.length for row in mine]
        for axis, (label, field) in zip(axes[:, column], what.items(), strict=True):
            for k, (form, marker) in enumerate(zip(FORMS, "xo^", strict=True)):
                values = [getattr(row.timings()[k], field) for row in mine]
                axis.loglog(lengths, np.array(values, float), marker=marker, label=form)
            axis.set_xticks(lengths, map(str, lengths))
            axis.xaxis.minorticks_off()
            axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
            axis.grid(alpha=0.3)
            axis.set_title(name, fontsize=10)
            axis.set_ylabel(label if column == 0 else "")
    axes[0][0].legend(fontsize=8)
    figure.supxlabel("steps")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cell", action="append", choices=CELLS, help="may be repeated")
    parser.add_argument(
        "--length",
        action="append",
        type=int,
        help=f"steps; may be repeated; by default {LENGTHS}, and {LONG[1]} of {LONG[0]}",
    )
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    arguments = parser.parse_args()
    print(f"{where()}\n\n{FEATURES} features, {HIDDEN} hidden, batch 1; {' / '.join(FORMS)}\n")
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.cell or CELLS:
            long = LONG[1:] if name == LONG[0] else ()
            for length in arguments.length or (*LENGTHS, *long):
                rows.append(measure(name, length, Path(folder)))
                print(f"| {' | '.join(rows[-1].cells())} |", flush=True)
    if arguments.plot is not None:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
