"""Low rank against plain SVD: the same weights, the same ranks, the same code path.

    python benchmarks/low_rank.py
    python benchmarks/low_rank.py --models DIR --name NAME --max-error 0.05

For each model, `optimize` fits, plans and judges on its calibration data. The baseline puts the
pair of thin products at the same weights and ranks, but from the singular vectors of the weight
alone. Both are then run on test inputs that nothing was fitted, planned or judged on. DIR holds
NAME.onnx, NAME_calibration.npz and NAME_test.npz, and an evaluate.py that prints a JSON line with
the metric under "value". Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import structopt_onnx as so
from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save
from structopt_onnx.passes.low_rank.factor_matmul import FactorMatmul
from structopt_onnx.rewriting.cost import graph_cost
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime import machine
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.compare import output_errors

REPOSITORY = Path(__file__).resolve().parent.parent
NAMES = ("digits_mlp", "digits_cnn", "simple_cnn")


def plain_svd(source: Path, ranks: dict[str, str], target: Path) -> None:
    """Factor the named weights at the given ranks by the singular vectors of the weights."""
    model, step = load(source), FactorMatmul()
    manager = PassManager(TARGETS["cpu"])
    planned = [
        Planned(step, choice, option)
        for choice in manager.choices(model, step)
        for option in choice.options
        if ranks.get("+".join(sorted(choice.site))) == option.label
    ]
    if len(manager.apply_plan(model, planned)) != len(ranks):
        raise SystemExit(f"{source}: the baseline could not be built at the same sites")
    save(model, target)


def parameters(path: Path) -> int:
    """Count the floating-point parameters of a model file."""
    model = load(path)
    return graph_cost(model, Facts(model)).parameters


def metric(folder: Path, name: str, path: Path) -> float:
    """Return the task's own metric on the test part."""
    command = [sys.executable, str(folder / "evaluate.py"), name, str(path)]
    line = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - our own script
    return float(json.loads(line)["value"])


def test_error(folder: Path, name: str, original: Path, candidate: Path) -> float:
    """Return the largest relative L2 error of any output on the test inputs."""
    reference = Session(original)
    samples = load_samples(folder / f"{name}_test.npz", reference.inputs)
    return max(output_errors(reference, Session(candidate), samples).values())


def row(folder: Path, name: str, max_error: float, minimize: str, work: Path) -> str:
    """Optimize one model, build its baseline, and compare both with the original."""
    original = folder / f"{name}.onnx"
    ours, baseline = work / f"{name}.onnx", work / f"{name}_svd.onnx"
    report = so.optimize(
        original,
        ours,
        calibration=folder / f"{name}_calibration.npz",
        max_error=max_error,
        minimize=minimize,
        benchmark=False,
    ).report
    plan = report.plan
    if plan is None or plan.final_error is None:
        return f"| {name} | budget met by changing nothing |" + " |" * 6
    ranks = {"+".join(s.weights): s.chosen for s in plan.sites if s.chosen is not None}
    plain_svd(original, ranks, baseline)
    kept = parameters(ours) / parameters(original)
    cells = [
        name,
        ", ".join(f"{weights} {label}" for weights, label in ranks.items()),
        f"{parameters(ours):,} of {parameters(original):,} ({kept:.1%})",
        f"{plan.final_error:.4f}",
        f"{test_error(folder, name, original, ours):.4f}",
        f"{test_error(folder, name, original, baseline):.4f}",
        f"{metric(folder, name, original):.4f}",
        f"{metric(folder, name, ours):.4f} / {metric(folder, name, baseline):.4f}",
    ]
    if abs(parameters(baseline) - parameters(ours)) > 0.01 * parameters(ours):
        raise SystemExit(f"{name}: the baseline does not have the same number of parameters")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--max-error", type=float, default=0.05)
    parser.add_argument("--minimize", default="time")
    arguments = parser.parse_args()
    where = machine.current()
    print(f"{where.cpu}, {where.cores} cores, onnxruntime {where.onnxruntime}, {where.os}")
    print(f"max_error {arguments.max_error}, minimize {arguments.minimize}\n")
    print(
        "| model | factored | parameters | error, final part | test error, ours "
        "| test error, plain SVD | metric before | metric, ours / plain SVD |"
    )
    print("|---" * 8 + "|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.name or NAMES:
            print(
                row(
                    arguments.models,
                    name,
                    arguments.max_error,
                    arguments.minimize,
                    Path(folder),
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
