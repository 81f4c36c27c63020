"""Evaluate a model of this folder, or a variant of one, on the test part of its data.

    python models/evaluate.py digits_cnn models/digits_cnn.onnx
    python models/evaluate.py digits_cnn small.onnx --against models/digits_cnn.onnx

Prints one JSON line. Needs numpy and onnxruntime only.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from user_item_matrix import user_ids, user_item_matrix

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported
import onnxruntime as ort

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
FACTORIZATION = "low_rank_factorization"


@dataclass(frozen=True)
class Measure:
    """What a task is judged by: a name, the expected values and how to score an output."""

    metric: str
    expected: np.ndarray
    score: Callable[[np.ndarray, np.ndarray], float]


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows of `scores` [n, classes] whose largest entry is at `labels` [n]."""
    return float(np.mean(scores.argmax(axis=-1) == labels))


def r2(prediction: np.ndarray, target: np.ndarray) -> float:
    """Share of the variance of `target` [n] that `prediction` [n, 1] explains."""
    residual = target - prediction[:, 0].astype(np.float64)
    return float(1 - residual @ residual / np.sum((target - target.mean()) ** 2))


def relative_l2(output: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm of `expected`, both over all entries."""
    wide = expected.astype(np.float64)
    return float(np.linalg.norm(output - wide) / np.linalg.norm(wide))


def names() -> list[str]:
    """List the tasks: the shipped models and the factorization."""
    return sorted([*(path.stem for path in HERE.glob("*.onnx")), FACTORIZATION])


def inputs(name: str) -> dict[str, np.ndarray]:
    """Load the inputs of the test part, batched along their first axis."""
    if name == FACTORIZATION:
        return {"user_ids": user_ids("test")}
    with np.load(HERE / f"{name}_test.npz") as stored:
        return dict(stored)


def measure(name: str) -> Measure:
    """Give the metric of task `name`; for several outputs it is that of the last one."""
    if name == FACTORIZATION:
        clean, _ = user_item_matrix()
        return Measure("relative_l2_to_clean", clean[user_ids("test")], relative_l2)
    if name == "sparse_linear_regression":
        with np.load(HERE / f"{name}_targets.npz") as targets:
            return Measure("r2", targets["test"], r2)
    with np.load(HERE / "digits_labels.npz") as labels:
        return Measure("accuracy", labels["test"], accuracy)


def run(name: str, model: str | Path) -> list[np.ndarray]:
    """Run `model` on the test part of task `name`, on the CPU, and give its outputs."""
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    outputs: list[np.ndarray] = session.run(None, inputs(name))
    return outputs


def metric(name: str, model: str | Path) -> float:
    """Evaluate the model file `model` on task `name` (one of `names()`)."""
    task = measure(name)
    return task.score(run(name, model)[-1], task.expected)


def main() -> None:
    """Print the metric of one model, and of the original it came from, as one JSON line."""
    parser = argparse.ArgumentParser(description="evaluate a model on the test part of its data")
    parser.add_argument("name", choices=names(), help="the task")
    parser.add_argument("model", type=Path, help="the .onnx file to evaluate")
    parser.add_argument(
        "--against",
        type=Path,
        help="the original: adds its value and the relative L2 difference of the worst output",
    )
    arguments = parser.parse_args()
    for path in (arguments.model, arguments.against):
        if path is not None and not path.is_file():
            parser.error(f"{path}: no such file")
    task = measure(arguments.name)
    outputs = run(arguments.name, arguments.model)
    line: dict[str, str | float] = {
        "name": arguments.name,
        "metric": task.metric,
        "value": task.score(outputs[-1], task.expected),
        "n": len(task.expected),
    }
    if arguments.against is not None:
        originals = run(arguments.name, arguments.against)
        line["original"] = task.score(originals[-1], task.expected)
        line["relative_l2"] = max(map(relative_l2, outputs, originals))
    print(json.dumps(line))


if __name__ == "__main__":
    main()
