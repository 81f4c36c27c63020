"""Every model of a folder through `optimize`: sizes, errors, the metric, the verdict on time.

    python benchmarks/all_models.py
    python benchmarks/all_models.py --models DIR --max-error 0.05 --name NAME --no-metric

DIR holds NAME.onnx and NAME_calibration.npz, or an evaluate.py that knows --list (name and file
under onnx/) and NAME --calibration OUT.npz --samples N. Its metric comes from evaluate.py NAME
MODEL.onnx, on data that is not the calibration data. Prints a Markdown table, a row as soon as it
is there.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import structopt_onnx as so
from structopt_onnx.runtime import machine

REPOSITORY = Path(__file__).resolve().parent.parent
HEADER = (
    "| model | bytes | parameters | nodes | applied | error | metric | time of one run |\n"
    + "|---" * 8
    + "|"
)


@dataclass(frozen=True)
class Task:
    """A model of the folder and how to get its calibration data and its metric."""

    folder: Path
    name: str
    model: Path

    def evaluate(self, *arguments: str) -> str:
        """Run the folder's evaluate.py on this task and return what it prints."""
        command = [sys.executable, str(self.folder / "evaluate.py"), self.name, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the folder's own script

    def calibration(self, work: Path, samples: int = 64) -> Path:
        """Return the calibration data, written by evaluate.py where no file lies there."""
        shipped = self.folder / f"{self.name}_calibration.npz"
        if shipped.is_file():
            return shipped
        made = work / f"{self.name}_calibration.npz"
        self.evaluate("--calibration", str(made), "--samples", str(samples))
        return made

    def metric(self, path: Path) -> str:
        """Return the metric of a variant."""
        return f"{json.loads(self.evaluate(str(path)).splitlines()[-1])['value']:.4g}"


def tasks(folder: Path) -> list[Task]:
    """Find the models of a folder."""
    shipped = sorted(folder.glob("*.onnx"))
    if shipped:
        return [Task(folder, path.stem, path) for path in shipped]
    command = [sys.executable, str(folder / "evaluate.py"), "--list"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - the folder's own script
    found = [line.split()[:2] for line in listing.splitlines() if line.strip()]
    listed = [Task(folder, name, folder / "onnx" / file) for name, file in found]
    return [task for task in listed if task.model.is_file()]


def row(task: Task, max_error: float | None, work: Path, *, with_metric: bool) -> str:
    """Optimize one model and describe the result."""
    target = work / f"{task.name}.onnx"
    report = so.optimize(
        task.model, target, calibration=task.calibration(work), max_error=max_error
    ).report
    before, after = report.before, report.after
    lossy = sum(entry.option is not None for entry in report.applied)
    validation = report.validation
    error = "-" if validation is None else f"{validation.exact.error:.2g}"
    if report.plan is not None and report.plan.predicted is not None:
        error += f" (predicted {report.plan.predicted:.2g})"
    if report.plan is not None and report.plan.nearest_miss is not None:
        site, miss = report.plan.nearest_miss
        error += f" (best option missed: {site}, {miss:.2g})"
    verdict = "nothing applied" if not report.applied else "-"
    if report.comparison is not None:
        verdict = report.comparison.verdict
        if report.comparison.ratio is not None:
            verdict += f" x{report.comparison.ratio:.3f}"
    if report.rolled_back:
        verdict += f"; rolled back: {'; '.join(report.rolled_back)}"
    metric = f"{task.metric(task.model)} -> {task.metric(target)}" if with_metric else "-"
    cells = [
        task.name,
        f"{before.file_bytes:,} -> {after.file_bytes:,}",
        f"{after.cost.parameters / max(1, before.cost.parameters):.1%}",
        f"{before.cost.nodes} -> {after.cost.nodes}",
        f"{len(report.applied) - lossy} exact, {lossy} lossy",
        error,
        metric,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--max-error", type=float, help="error budget; exact passes only without")
    parser.add_argument("--no-metric", action="store_true")
    arguments = parser.parse_args()
    where = machine.current()
    print(f"{where.cpu}, {where.cores} cores, onnxruntime {where.onnxruntime}, {where.os}")
    print(f"max_error {arguments.max_error}\n\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.models):
            if arguments.name is None or task.name in arguments.name:
                print(
                    row(
                        task,
                        arguments.max_error,
                        Path(folder),
                        with_metric=not arguments.no_metric,
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
