"""int8 beside us: onnxruntime's own quantization of the originals and of what we make of them.

    python benchmarks/quantization.py
    python benchmarks/quantization.py --models DIR --name NAME --samples 180
    python benchmarks/quantization.py --qnn --no-time

Ours is `optimize` within `--max-error`. Both files are then quantized alike, by
`quant_pre_process` and `quantize_static` (int8 weights per channel and int8 activations, in QDQ
form, ranges from the first part of the calibration data), and without convolutions also by
`quantize_dynamic` (activations get their scale as they come; an LSTM is quantized in no other way).
Errors are of the last part of the calibration data, against the original in float32; the metric is
that of evaluate.py, on other data again. Times are those of the paired benchmark, one thread. With
`--qnn` the float32 and the QDQ models also run on the simulator of QNN's HTP backend, which has no
times.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from all_models import REPOSITORY, Task, tasks
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from pairs import interval, where

import structopt_onnx as so
from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.compare import output_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.runtime.session import Feeds

STATIC, DYNAMIC = "static", "dynamic"
COLUMNS = ("bytes", "error", "metric", "time over the original's", "time over the original's int8")
QNN_COLUMNS = (
    "on QNN's simulator",
    "nodes taken",
    "operators there",
    "bytes",
    "error to it on the CPU",
)
_RECURRENT = frozenset({"RNN", "GRU", "LSTM"})


class Reader(CalibrationDataReader):
    """Samples as onnxruntime's calibration asks for them."""

    def __init__(self, samples: Samples) -> None:
        self._left: Iterator[Feeds] = iter(samples)

    def get_next(self) -> Feeds | None:
        """Return the next sample; None behind the last one."""
        return next(self._left, None)


def ways(model: Path) -> list[str]:
    """List the ways to quantize a model."""
    kinds = {node.op_type for node in onnx.load(model, load_external_data=False).graph.node}
    return [STATIC] * (not kinds & _RECURRENT) + [DYNAMIC] * ("Conv" not in kinds)


def quantize(model: Path, made: Path, samples: Samples, way: str) -> Path:
    """Write the int8 form of a model, made as onnxruntime's documentation says, and check it."""
    prepared = made.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    if way == STATIC:
        quantize_static(str(prepared), str(made), Reader(samples), per_channel=True)
    else:
        quantize_dynamic(str(prepared), str(made), per_channel=True, weight_type=QuantType.QInt8)
    onnx.checker.check_model(str(made), full_check=way == STATIC)
    return made


class Study:
    """A model, what we make of it, and both of them in int8."""

    def __init__(self, task: Task, work: Path, arguments: argparse.Namespace) -> None:
        self.task, self.work, self.seconds = task, work, arguments.seconds
        self.data = task.calibration(work, arguments.samples)
        session = Session(task.model)
        samples = load_samples(self.data, session.inputs, optional=session.overridable)
        self.fit, _, self.final = samples.split()
        self.ours = work / f"{task.name}_ours.onnx"
        report = so.optimize(
            task.model,
            self.ours,
            calibration=self.data,
            max_error=arguments.max_error,
            minimize=arguments.minimize,
        ).report
        cost, was = report.after.cost, report.before.cost
        self.left = f"{cost.parameters / was.parameters:.1%} of parameters"
        if was.macs:
            self.left += f" and {cost.macs / was.macs:.1%} of MACs left"

    def variants(self) -> Iterator[tuple[str, Path, Path | None]]:
        """Yield what is compared: a label, the file, and the original's int8 of its kind."""
        yield "original", self.task.model, None
        yield f"ours, {self.left}", self.ours, None
        for way in ways(self.task.model):
            names = [self.work / f"{self.task.name}_{who}_{way}.onnx" for who in ("its", "our")]
            its, our = names
            yield f"original, int8 {way}", quantize(self.task.model, its, self.fit, way), None
            yield f"ours, int8 {way}", quantize(self.ours, our, self.fit, way), its

    def row(self, label: str, path: Path, rival: Path | None) -> list[str]:
        """Describe a variant; without `--seconds`, without times."""
        size, was = path.stat().st_size, self.task.model.stat().st_size
        error = max(output_errors(Session(self.task.model), Session(path), self.final).values())
        times = [
            "-" if a is None or a == path else self.time(a, path) for a in (self.task.model, rival)
        ]
        return [
            label,
            f"{size:,} ({size / was:.1%})",
            f"{error:.4f}",
            self.task.metric(path),
            *times,
        ]

    def time(self, a: Path, b: Path) -> str:
        """Return B's time over A's."""
        if not self.seconds:
            return "-"
        return interval(so.benchmark(a, b, data=self.data, seconds=self.seconds))


def on_qnn(study: Study, variants: Sequence[tuple[str, Path, Path | None]]) -> list[list[str]]:
    """Run the variants on the simulator."""
    rows = []
    for label, path, _ in variants:
        if DYNAMIC in label:
            continue
        (row,) = so.compare_providers(path, providers=["qnn"], data=study.data).rows
        if row.taken is None:
            rows.append([label, row.status.text, "-", "-", "-"])
            continue
        error = "-" if row.relative_error is None else f"{row.relative_error:.4f}"
        cells = [f"{row.taken} of {row.nodes}", str(row.graph_ops), f"{row.context_bytes:,}", error]
        rows.append([label, *cells])
    return rows


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"{'|---' * len(head)}|", *lines[1:]])


def main() -> None:
    """Print a table per model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--max-error", type=float, default=0.05, help="the budget of ours")
    parser.add_argument("--minimize", default="time", help="what ours is to lower")
    parser.add_argument("--samples", type=int, default=64, help="asked of evaluate.py")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a comparison of times")
    parser.add_argument("--no-time", dest="seconds", action="store_const", const=0.0)
    parser.add_argument("--qnn", action="store_true", help="also run on QNN's simulator")
    arguments = parser.parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    print(f"{where()}\nmax_error {arguments.max_error}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.models):
            if arguments.name is not None and task.name not in arguments.name:
                continue
            study = Study(task, Path(folder), arguments)
            variants = list(study.variants())
            rows = [study.row(*variant) for variant in variants]
            print(f"\n{_table((task.name, *COLUMNS), rows)}", flush=True)
            if arguments.qnn:
                head = (f"{task.name} {QNN_COLUMNS[0]}", *QNN_COLUMNS[1:])
                print(f"\n{_table(head, on_qnn(study, variants))}", flush=True)


if __name__ == "__main__":
    main()
