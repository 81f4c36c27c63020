"""What the benchmarks of exact passes share: a model, what it became, and both of them compared."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from structopt_onnx.runtime import machine
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from structopt_onnx import Comparison
    from structopt_onnx.runtime.session import Feeds

OPSET = 19  # AveragePool has dilations from here on
IR = 9  # of the release with that opset


class Net:
    """A model of float32 values, written node by node, with one input and one output.

    Parameters
    ----------
    shape
        Of the input ``x``.
    seed
        Of the weights.
    """

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.x = "x"
        self._shape = shape
        self._nodes: list[onnx.NodeProto] = []
        self._stored: list[onnx.TensorProto] = []

    def stored(self, array: np.ndarray) -> str:
        """Add an initializer and return its name; float64 becomes float32."""
        name = f"w{len(self._stored)}"
        kept = array.astype(np.float32) if array.dtype == np.float64 else array
        self._stored.append(onnx.numpy_helper.from_array(kept, name))
        return name

    def add(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node and return its first output."""
        return self.split(op_type, *inputs, outputs=1, **attributes)[0]

    def split(self, op_type: str, *inputs: str, outputs: int, **attributes: object) -> list[str]:
        """Add a node and return all its outputs."""
        names = [f"v{len(self._nodes)}_{k}" for k in range(outputs)]
        name = f"{op_type}_{len(self._nodes)}"
        self._nodes.append(onnx.helper.make_node(op_type, inputs, names, name, **attributes))
        return names

    def proto(self, *outputs: str) -> onnx.ModelProto:
        """Return the model; its outputs are ``y0``, ``y1`` and so on."""
        names = {value: f"y{k}" for k, value in enumerate(outputs)}
        for node in self._nodes:
            for listed in (node.input, node.output):
                listed[:] = [names.get(value, value) for value in listed]
        made = [
            onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None)
            for y in names.values()
        ]
        x = onnx.helper.make_tensor_value_info(self.x, onnx.TensorProto.FLOAT, self._shape)
        graph = onnx.helper.make_graph(self._nodes, "net", [x], made, self._stored)
        opsets = [onnx.helper.make_opsetid("", OPSET)]
        return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR)


def where() -> str:
    """Say on one line where this runs."""
    here = machine.current()
    return (
        f"{here.cpu}, {here.cores} cores, {here.os}, Python {here.python}, "
        f"onnxruntime {here.onnxruntime}, onnx {here.onnx}, numpy {here.numpy}"
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what other libraries say to themselves out of a table."""
    nowhere = io.StringIO()  # and not a file: loggers that are set up meanwhile keep it
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def difference(a: Path, b: Path, samples: Sequence[Feeds]) -> float:
    """Return the largest ``|a - b|`` over the largest ``|a|``, of all outputs and samples.

    Both models run without onnxruntime's graph optimizations: what is left is the rewrite's doing.
    """
    sessions = [Session(path, optimize=False) for path in (a, b)]
    worst = 0.0
    for feeds in samples:
        expected, found = (session.run(feeds) for session in sessions)
        for name, array in expected.items():
            scale = float(np.abs(array).max()) or 1.0
            worst = max(worst, float(np.abs(found[name] - array).max()) / scale)
    return worst


def interval(found: Comparison) -> str:
    """Write the verdict, and B's time over A's with its interval."""
    if found.ratio is None:
        return f"{found.verdict} ({found.reason})"
    return f"{found.verdict} x{found.ratio:.3f} [{found.low:.3f}, {found.high:.3f}]"


def short(value: float | None) -> str:
    """Write a number of milliseconds to three digits."""
    return "?" if value is None else f"{float(f'{value:.3g}'):,g}"
