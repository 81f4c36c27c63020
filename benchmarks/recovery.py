"""Models cut to shares of their parameters, and what fine-tuning to the original wins back.

    python benchmarks/recovery.py
    python benchmarks/recovery.py --kept 0.5 --kept 0.3 --minutes 5 --plot docs/recovery.png
    python benchmarks/recovery.py --models DIR --name NAME --kept 0.81 --passes factor-matmul

DIR is as for all_models.py. `optimize` keeps a share of all parameters at the least error, by the
passes given; `recover` then tunes the weights that this touched to the original's outputs, on the
part of the calibration data that was fitted to, without labels. Errors are relative L2 of the
part that nothing was fitted to; the metric is of other data: of the original, cut, and recovered.
Needs torch (extra `export`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
from all_models import REPOSITORY, tasks
from pairs import where

import structopt_onnx as so

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from all_models import Task

KEPT = (0.6, 0.4, 0.3, 0.2)
_SAMPLES = 2000
COLUMNS = (
    "model",
    "parameters",
    "error, cut",
    "error, recovered",
    "metric of the original, cut, recovered",
    "steps",
    "minutes",
    "",
)


@dataclass(frozen=True)
class Row:
    """One model at one share, without and with recovery."""

    model: str
    parameters: float
    cut: float
    recovered: float
    metrics: tuple[str, str, str]
    steps: int
    minutes: float
    stopped: str

    def cells(self) -> list[str]:
        """Write it for the table."""
        return [
            self.model,
            f"{self.parameters:.1%}",
            f"{self.cut:.4f}",
            f"{self.recovered:.4f}",
            " / ".join(self.metrics),
            str(self.steps),
            f"{self.minutes:.1f}",
            self.stopped,
        ]


def measured(
    task: Task, share: float, work: Path, passes: str | None, minutes: float
) -> Row | None:
    """Cut a model, recover it; None where it can't be cut so far."""
    data = task.calibration(work, _SAMPLES)
    try:
        cut = so.optimize(
            task.model,
            calibration=data,
            keep={"parameters": share},
            passes=passes,
            benchmark=False,
        )
    except so.ValidationFailed:
        return None
    plan = cut.report.plan
    if plan is None or plan.final_error is None:
        return None
    start = time.monotonic()
    tuned = so.recover(cut, minutes=minutes)
    spent = time.monotonic() - start
    paths = [result.save(work / f"{k}.onnx") for k, result in enumerate((cut, tuned))]
    after = tuned.report.plan
    told = None if after is None else after.recovery
    if after is None or told is None:
        return None
    before = cut.report.before.cost.parameters
    return Row(
        task.name,
        cut.report.after.cost.parameters / before,
        plan.final_error,
        after.final_error or plan.final_error,
        (task.metric(task.model), *(task.metric(path) for path in paths)),
        told.steps,
        spent / 60,
        told.stopped,
    )


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw errors over the share of parameters, cut and recovered."""
    names = list(dict.fromkeys(row.model for row in rows))
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for number, name in enumerate(names):
        ours = [row for row in rows if row.model == name]
        shares = [row.parameters for row in ours]
        color = f"C{number}"
        axes.plot(shares, [r.cut for r in ours], "o:", color=color, label=f"{name}, cut")
        axes.plot(shares, [r.recovered for r in ours], "o-", color=color, label="recovered")
    axes.set(xlabel="parameters left", ylabel="relative L2 error", yscale="log")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print a row per model and share, and draw them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="only this model; repeatable")
    parser.add_argument("--kept", action="append", type=float, help="share; repeatable")
    parser.add_argument("--passes", help="pipeline, such as factor-matmul")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each recovery")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    given = parser.parse_args()
    print(where(), flush=True)
    print("\n| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(given.models):
            if given.name and task.name not in given.name:
                continue
            for share in given.kept or KEPT:
                row = measured(task, share, Path(folder), given.passes, given.minutes)
                if row is not None:
                    rows.append(row)
                    print("| " + " | ".join(row.cells()) + " |", flush=True)
    if given.plot:
        plot(rows, given.plot)


if __name__ == "__main__":
    main()
