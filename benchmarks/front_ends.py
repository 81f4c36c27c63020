"""Models of each front end through `optimize`: which passes fire, and whether outputs hold.

    python benchmarks/front_ends.py
    python benchmarks/front_ends.py --front-end sklearn-mlp --front-end torch-dynamo

Each front end trains a small classifier on the shipped digits and exports it. Exact passes alone
run on it, and then all passes within the error budget, on the calibration images; by predicted
costs, for macs, so that a row is the same on every machine of one kind. On the test images, which
nothing has seen: ``front end`` is the largest difference between the optimized model and what the
front end itself gives, over the largest of its values (for class labels the share that differs),
beside the same of the model as exported; ``error`` is the relative L2 error of the worst output
against the model as exported. A front end that is not installed is a row that says how to install
it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import front_end_models as models
import numpy as np
import onnx
from pairs import quiet, where

import structopt_onnx as so
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable

BUDGET = 0.05
COLUMNS = (
    "front end",
    "opset",
    "nodes",
    "exact passes",
    "front end's outputs: exported, optimized",
    f"lossy, within {BUDGET}",
    "parameters left",
    "error",
    "status",
)


@dataclass(frozen=True)
class FrontEnd:
    """What makes a model, and what it needs.

    Attributes
    ----------
    make
        Of `front_end_models`.
    packages
        What pip installs; the first ones are named with their versions.
    image
        Shape of one image as the model takes it.
    """

    make: Callable[[models.Digits, Path], models.Run]
    packages: tuple[str, ...] = ()
    image: tuple[int, ...] = (1, 8, 8)

    @property
    def missing(self) -> bool:
        """Whether a package is not installed."""
        names = {
            "scikit-learn": "sklearn",
            "tensorflow-cpu": "tensorflow",
            "paddlepaddle": "paddle",
        }
        return any(find_spec(names.get(package, package)) is None for package in self.packages)

    @property
    def versions(self) -> str:
        """Name what is installed."""
        return ", ".join(f"{package} {version(package)}" for package in self.packages)


MODULES = {"scikit-learn": "sklearn", "tensorflow-cpu": "tensorflow", "paddlepaddle": "paddle"}
NHWC = (8, 8, 1)
FRONT_ENDS = {
    "torch-dynamo": FrontEnd(models.torch_dynamo, ("torch", "onnxscript")),
    "torch-script": FrontEnd(models.torch_script, ("torch",)),
    "sklearn-mlp": FrontEnd(models.sklearn_mlp, ("scikit-learn", "skl2onnx"), (64,)),
    "sklearn-logistic": FrontEnd(models.sklearn_logistic, ("scikit-learn", "skl2onnx"), (64,)),
    "sklearn-pipeline": FrontEnd(models.sklearn_pipeline, ("scikit-learn", "skl2onnx"), (64,)),
    "mxnet-style": FrontEnd(models.mxnet_style),
    "cntk-style": FrontEnd(models.cntk_style),
    "keras-tensorflow": FrontEnd(
        models.keras_tensorflow, ("keras", "tensorflow-cpu", "tf2onnx"), NHWC
    ),
    "keras-torch": FrontEnd(models.keras_torch, ("keras", "torch"), NHWC),
    "tensorflow": FrontEnd(models.tensorflow, ("tensorflow-cpu", "tf2onnx"), NHWC),
    "jax": FrontEnd(models.jax, ("jax", "jax2onnx"), NHWC),
    "paddle": FrontEnd(models.paddle, ("paddlepaddle", "paddle2onnx")),
}


@dataclass(frozen=True)
class Outcome:
    """What became of a front end's model.

    Attributes
    ----------
    opset
        Of the standard operators in the model as exported.
    exact, lossy
        Reports of the two runs.
    exported, optimized
        Difference from the front end's own outputs, before and after exact passes.
    error
        Of the lossy result on the test images.
    passed
        Whether all validations passed, those on the test images among them.
    """

    opset: int
    exact: so.Report
    lossy: so.Report
    exported: float
    optimized: float
    error: float
    passed: bool


def difference(path: Path, images: np.ndarray, expected: list[np.ndarray]) -> float:
    """Return how far a model's outputs are from the front end's, image by image."""
    session = Session(path)
    (x,) = session.inputs
    runs = [list(session.run({x.name: image[None]}).values()) for image in images]
    worst = 0.0
    for rows, right in zip(zip(*runs, strict=True), expected, strict=True):
        found = np.concatenate(rows)
        if np.issubdtype(found.dtype, np.integer):
            worst = max(worst, float(np.mean(found != right)))
        else:
            worst = max(worst, float(np.abs(found - right).max() / np.abs(right).max()))
    return worst


def measure(front_end: FrontEnd, folder: Path) -> Outcome:
    """Make, export and optimize a model, and compare outputs."""
    digits = models.Digits.shipped()
    path, exact, lossy = (folder / f"{name}.onnx" for name in ("model", "exact", "lossy"))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        run = front_end.make(digits, path)
        expected = run(digits.test)
    proto = onnx.load(path, load_external_data=False)
    (given,) = Session(path).inputs
    calibration, test = (
        {given.name: images.reshape(-1, *front_end.image)}
        for images in (digits.calibration, digits.test)
    )
    first = so.optimize(path, exact, calibration=calibration, benchmark=False).report
    second = so.optimize(
        path,
        lossy,
        calibration=calibration,
        max_error=BUDGET,
        minimize="macs",
        cost_seconds=0,
        benchmark=False,
    ).report
    checks = [so.validate(path, exact, data=test), so.validate(path, lossy, data=test, max_error=1)]
    return Outcome(
        opset=next(o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}),
        exact=first,
        lossy=second,
        exported=difference(path, test[given.name], expected),
        optimized=difference(exact, test[given.name], expected),
        error=checks[1].validation.exact.error,
        passed=all(v.passed for v in (first.validation, second.validation, checks[0])),
    )


def counted(report: so.Report, *, lossy: bool) -> str:
    """Name the passes that fired and how often."""
    steps = Counter(a.step for a in report.applied if (a.option is not None) == lossy)
    return ", ".join(f"{step} {count}" for step, count in steps.items()) or "none"


def row(name: str) -> str:
    """Write a front end's row of the table."""
    front_end = FRONT_ENDS[name]
    if front_end.missing:
        blank = " | -" * (len(COLUMNS) - 2)
        return f"| {name}{blank} | not run: pip install {' '.join(front_end.packages)} |"
    with tempfile.TemporaryDirectory() as folder:
        found = measure(front_end, Path(folder))
    before, after, small = found.exact.before.cost, found.exact.after.cost, found.lossy.after.cost
    cells = (
        f"{name} ({front_end.versions or 'written by hand'})",
        str(found.opset),
        f"{before.nodes} -> {after.nodes}",
        counted(found.exact, lossy=False),
        f"{found.exported:.1g}, {found.optimized:.1g}",
        counted(found.lossy, lossy=True),
        f"{small.parameters / before.parameters:.1%}" if before.parameters else "-",
        f"{found.error:.2g}",
        "passed" if found.passed else "failed",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--front-end", action="append", choices=FRONT_ENDS, metavar="NAME")
    arguments = parser.parse_args()
    print(f"{where()}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    # A process each: Keras is bound to one backend, and the libraries share no runtime.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, max_tasks_per_child=1) as pool:
        for line in pool.map(row, arguments.front_end or FRONT_ENDS):
            print(line, flush=True)


if __name__ == "__main__":
    main()
