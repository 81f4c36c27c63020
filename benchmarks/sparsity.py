"""Weights with zeros: what each encoding takes on disk, while loading, and in a run.

    python benchmarks/sparsity.py
    python benchmarks/sparsity.py --part encoding --density 0.3 --plot docs/sparsity.png

A part is a table. ``encoding``: a MatMul of one row with a 1024 x 4096 weight, seeded normal
numbers of which a share is kept, written dense and by `optimize --sparse-format` in each encoding.
Rows of float16 and of 255 values are of weights that were rounded so beforehand, in the smallest
encoding, beside the dense rounded one. Bytes are of the file, zlib is level 6 on the dense data,
for a channel that compresses anyway. Times are those of the paired benchmark on one thread, the
encoded model over the dense one; session creation and peak memory are of the processes that
measured. Equal means the same bits of the output in ordinary sessions; what is left of the graph
is what onnxruntime saves as its optimized model.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import onnx
import onnxruntime
from pairs import Net, interval, short, where

import structopt_onnx as so
from structopt_onnx.linalg.codebook import codebook, rounded
from structopt_onnx.runtime.session import Session

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS, COLUMNS = 1024, 4096
DENSITIES = (0.5, 0.3, 0.1, 0.05)
FORMATS = ("initializer", "bitmask", "delta")
VALUES = ("float16", "255 values")
SECONDS = 45.0  # at most; a session on an encoded model takes long to create


# Encoding ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """One encoding of one weight beside its dense form."""

    density: float
    format: str
    share: float
    zlib_share: float
    equal: bool
    left: tuple[str, ...]
    found: so.Comparison

    def cells(self) -> list[str]:
        """Write it for the table."""
        a, b = self.found.a, self.found.b
        return [
            f"{self.density:.0%}",
            self.format,
            f"{b.file_bytes:,} of {a.file_bytes:,}",
            f"{self.share:.1%}",
            f"{self.zlib_share:.1%}",
            f"{short(a.session_creation_ms)} -> {short(b.session_creation_ms)}",
            f"{_mebibytes(a)} -> {_mebibytes(b)}",
            f"{short(a.p50)} -> {short(b.p50)}",
            interval(self.found),
            "yes" if self.equal else "NO",
            ", ".join(self.left),
        ]


ENCODING_COLUMNS = (
    "density",
    "encoding",
    "bytes",
    "of dense",
    "zlib of dense",
    "session creation, ms",
    "peak memory, MiB",
    "p50, ms",
    "time of one run",
    "equal",
    "left of the graph",
)


def _mebibytes(timing: so.Timing) -> str:
    peak = timing.peak_rss_bytes
    return "?" if peak is None else f"{peak / 2**20:,.0f}"


def dense_model(density: float, values: str = "") -> onnx.ModelProto:
    """Write a MatMul whose weight has that share of nonzeros, rounded where `values` says so."""
    net = Net((1, ROWS))
    kept = net.rng.random((ROWS, COLUMNS)) < density
    weight = np.where(kept, net.rng.standard_normal((ROWS, COLUMNS)), 0) / np.sqrt(ROWS * density)
    if values == VALUES[0]:
        weight = weight.astype(np.float16).astype(np.float32)
    elif values == VALUES[1]:
        weight[kept] = rounded(weight[kept], codebook(weight[kept], 255))
    proto = net.proto(net.add("MatMul", net.x, net.stored(weight)))
    output = onnx.helper.make_tensor_value_info("y0", onnx.TensorProto.FLOAT, [1, COLUMNS])
    proto.graph.output[0].CopyFrom(output)
    return proto


def measure_encoding(density: float, name: str, dense: Path, work: Path) -> Encoded:
    """Encode a model and measure it against the dense one; `name` is of FORMATS or of VALUES."""
    path = work / "encoded.onnx"
    rng = np.random.default_rng(1)
    feeds = [{"x": rng.standard_normal((1, ROWS)).astype(np.float32)} for _ in range(4)]
    wanted = name if name in FORMATS else "auto"
    so.optimize(dense, path, sparse_format=wanted, calibration=feeds, benchmark=False)
    onnx.checker.check_model(str(path))
    sessions = [Session(model) for model in (dense, path)]
    equal = all(
        sessions[0].run(x)["y0"].tobytes() == sessions[1].run(x)["y0"].tobytes() for x in feeds
    )
    del sessions
    found = so.benchmark(dense, path, data=feeds, seconds=SECONDS)
    (weight,) = onnx.load(dense).graph.initializer
    return Encoded(
        density,
        name,
        found.b.file_bytes / found.a.file_bytes,
        len(zlib.compress(weight.raw_data)) / len(weight.raw_data),
        equal,
        optimized_operators(path, work),
        found,
    )


def optimized_operators(path: Path, work: Path) -> tuple[str, ...]:
    """List the operators that onnxruntime leaves of a model when it creates a session."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that such a file is tied to the machine
    options.optimized_model_filepath = str(work / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return tuple(node.op_type for node in onnx.load(work / "optimized.onnx").graph.node)


def encoding(arguments: argparse.Namespace) -> None:
    """Print the table of encodings and draw it."""
    rows = []
    _head(f"{ROWS} x {COLUMNS} float32, MatMul of one row", ENCODING_COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        for density in arguments.density or DENSITIES:
            dense = Path(folder) / "dense.onnx"
            for name in (*FORMATS, *VALUES):
                onnx.save(dense_model(density, name), dense)
                rows.append(measure_encoding(density, name, dense, Path(folder)))
                print(f"| {' | '.join(rows[-1].cells())} |", flush=True)
    if arguments.plot is not None:
        plot_encoding(rows, arguments.plot)


def plot_encoding(rows: Sequence[Encoded], path: Path) -> None:
    """Draw bytes, session creation and peak memory over the density."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), layout="constrained")
    for name, marker in zip((*FORMATS, *VALUES), "xo^sd", strict=True):
        mine = [row for row in rows if row.format == name]
        densities = [row.density for row in mine]
        series = (
            [100 * row.share for row in mine],
            [row.found.b.session_creation_ms for row in mine],
            [(row.found.b.peak_rss_bytes or np.nan) / 2**20 for row in mine],
        )
        for axis, values in zip(axes, series, strict=True):
            axis.plot(densities, np.array(values, float), marker=marker, label=name)
    mine = [row for row in rows if row.format == FORMATS[0]]
    densities = [row.density for row in mine]
    beside = (
        [100 * row.zlib_share for row in mine],
        [row.found.a.session_creation_ms for row in mine],
        [(row.found.a.peak_rss_bytes or np.nan) / 2**20 for row in mine],
    )
    labels = ("zlib of dense", "dense", "dense")
    titles = ("bytes, % of dense", "session creation, ms", "peak memory, MiB")
    for axis, values, label, title in zip(axes, beside, labels, titles, strict=True):
        axis.plot(densities, np.array(values, float), ":", color="gray", label=label)
        axis.set_title(title, fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    axes[1].legend(fontsize=8)
    figure.supxlabel("density")
    figure.savefig(path, dpi=110)


# All parts --------------------------------------------------------------------------------------


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {"encoding": encoding}


def _head(what: str, columns: Sequence[str]) -> None:
    print(f"{what}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)


def main() -> None:
    """Print the tables of the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated")
    parser.add_argument(
        "--density", action="append", type=float, help=f"may be repeated; by default {DENSITIES}"
    )
    parser.add_argument("--plot", type=Path, metavar="OUT.png", help="of the part encoding")
    arguments = parser.parse_args()
    print(f"{where()}\n")
    for part in arguments.part or PARTS:
        PARTS[part](arguments)


if __name__ == "__main__":
    main()
