"""Zeros in weights: what they cost in error, layer by layer and on whole models.

    python benchmarks/pruning.py
    python benchmarks/pruning.py --models DIR --name NAME --plot docs/pruning.png --no-plan

Layers are fitted on the first part of the calibration data; errors are of the last part, relative
to the variance of each layer's output on it, in the geometric mean over layers. Ways: magnitude,
with and without the bias correction that all others have; Wanda (by row); SparseGPT; its zeros with
the rest refitted; and what `prune-weights` does. Whole models have the same share of zeros in every
layer, or the shares that the planner chose for no more bytes. Bytes are of the file, with weights
as `encode-sparse` stores them; the metric is that of evaluate.py, on other data again.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import onnx_ir as ir
from all_models import REPOSITORY, Task, tasks

import structopt_onnx as so
from structopt_onnx.api.bench import prepare
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.judge import Judge
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.linalg.masked_refit import masked_refit
from structopt_onnx.linalg.pruning import Pattern, largest, pruned, sparsegpt
from structopt_onnx.model.saving import save
from structopt_onnx.passes.low_rank.last_factor import LastFactor, last_factor
from structopt_onnx.passes.sparsity.lone_weight import lone_weights
from structopt_onnx.passes.sparsity.prune_weights import PruneWeights
from structopt_onnx.passes.sparsity.pruning_fit import Fit
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.encodings import encoded_bytes
from structopt_onnx.rewriting.manager import Planned
from structopt_onnx.rewriting.passes import Choice, Option
from structopt_onnx.runtime import machine

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.sparsity.pruning_fit import FloatArray

    Sparse = tuple[npt.NDArray[Any], FloatArray]

PATTERNS = {
    "50 %": Pattern(0.5),
    "70 %": Pattern(0.7),
    "90 %": Pattern(0.9),
    "2:4": Pattern.of("2:4"),
    "4:8": Pattern.of("4:8"),
}
PLAIN, OURS = "magnitude", "prune-weights"
WAYS = (PLAIN, "magnitude, bias", "Wanda", "SparseGPT", "SparseGPT, refit", OURS)
WHOLE = ("50 %", "70 %")
_SAMPLES = 1000


@dataclass
class Layer:
    """One weight, what it was fitted to, and what it is judged by."""

    fit: Fit
    held: Moments
    made: dict[tuple[str, str], Sparse]

    def prune(self, way: str, pattern: Pattern) -> FloatArray:
        """Return the sparse weight, float64 [m, n]."""
        weight, moments = self.fit.found.factor(), self.fit.moments
        inputs = self.fit.inputs(weight)
        if moments is None or inputs is None:
            raise ValueError(self.fit.found.weight.name)
        match way:
            case "Wanda":
                scores = np.abs(weight) * np.sqrt(moments.second_moment.diagonal())
                return weight * largest(scores, pattern, by_row=True)
            case "SparseGPT":
                return sparsegpt(weight, inputs, pattern)
            case "SparseGPT, refit":
                kept = sparsegpt(weight, inputs, pattern) != 0
                return masked_refit(weight, inputs.moment, kept)
            case "prune-weights":
                return pruned(weight, inputs, pattern)
            case _:
                return pruned(weight, None, pattern)

    def error(self, way: str, name: str) -> float:
        """Return the relative error on the last part, and keep what whole models are made of."""
        weight, found, moments = self.fit.found.factor(), self.fit.found, self.fit.moments
        sparse = self.prune(way, PATTERNS[name])
        lost, bias = weight - sparse, found.bias
        shift = lost @ self.held.mean
        if moments is not None and found.addend is not None and way != PLAIN:
            shift, bias = shift - lost @ moments.mean, bias + lost @ moments.mean
        if name in WHOLE and way in {PLAIN, OURS}:
            self.made[way, name] = sparse.astype(found.stored(sparse).dtype), bias
        error = np.sum((lost @ self.held.covariance) * lost) + np.sum(shift**2)
        return float(error / np.sum((weight @ self.held.covariance) * weight)) ** 0.5


class Study:
    """One model and its layers."""

    def __init__(self, task: Task, work: Path) -> None:
        self.task, self.work = task, work
        self.data = task.calibration(work, _SAMPLES)
        options = OptimizeOptions(minimize="bytes", max_error=0.0, benchmark=False)
        self.bench = prepare(task.model, options, self.data, lambda _: None)
        self.exact = run_exact(self.bench)
        model, step = self.exact.model, PruneWeights()
        fit, _, self.final = self.bench.samples.split()
        facts = self.exact.manager.facts(model)
        wanted = list(step.needs(facts.scopes[0], facts))
        seen, held = gather(model, fit, wanted), gather(model, self.final, wanted)
        self.layers = [
            Layer(Fit.of(found, seen[found.read], step.unseen), held[found.read], {})
            for found in lone_weights(facts.scopes[0], facts)
            if isinstance(found, LastFactor) and found.read in seen and found.read in held
        ]

    def errors(self, names: Sequence[str]) -> dict[tuple[str, str], list[float]]:
        """Return the errors of all layers by way and pattern."""
        return {
            (way, name): [layer.error(way, name) for layer in self.layers]
            for name in names
            for way in WAYS
        }

    def whole(self, way: str, name: str) -> list[str]:
        """Describe the model with every layer pruned alike."""
        planned = []
        for layer in self.layers:
            weight = layer.fit.found.weight.name or ""
            patch = partial(_patch, weight, layer.made[way, name])
            option = Option(name, 0.0, Cost(), Cost(), patch)
            choice = Choice(frozenset({weight}), "", (option,), "calibration")
            planned.append(Planned(PruneWeights(), choice, option))
        model = self.exact.model.clone()
        manager = self.bench.manager()
        manager.gates = ()
        done = manager.apply_plan(model, planned)
        return self._row(f"{way}, {name} of {len(done)} layers", model)

    def planned(self, share: float) -> list[str]:
        """Describe what the planner makes for a share of the bytes."""
        report = so.optimize(
            self.task.model,
            path := self.work / "planned.onnx",
            calibration=self.data,
            passes="prune-weights,encode-sparse",
            keep={"bytes": share},
            benchmark=False,
        ).report
        error = "-" if report.plan is None else f"{report.plan.final_error:.4f}"
        size, was = report.after.file_bytes, report.before.file_bytes
        label = f"{OURS}, planned for {share:.1%} of the weights' bytes"
        return [label, f"{size:,} ({size / was:.1%})", error, self.task.metric(path)]

    def original(self) -> list[str]:
        """Describe the model as it is."""
        size = self.task.model.stat().st_size
        return ["original", f"{size:,}", "0", self.task.metric(self.task.model)]

    def share(self, way: str, name: str) -> float:
        """Return the share of the weights' bytes that a variant takes once it is encoded."""
        sparse = {layer.fit.found.weight.name: layer.made[way, name][0] for layer in self.layers}
        whole = self.bench.cost(self.bench.model, self.bench.shapes).bytes
        saved = sum(a.nbytes - encoded_bytes(ir.tensor(a)) for a in sparse.values())
        return (whole - saved) / whole

    def _row(self, label: str, model: ir.Model) -> list[str]:
        error = Judge(self.bench, self.final).error(model)
        model = self.bench.manager().run(model, self.bench.encoding_steps)
        path = self.work / "variant.onnx"
        save(model, path)
        size, was = path.stat().st_size, self.task.model.stat().st_size
        metric = self.task.metric(path)
        return [label, f"{size:,} ({size / was:.1%})", f"{error:.4f}", metric]


def _patch(weight: str, made: Sparse, scope: Scope, facts: Facts) -> Patch:
    found = last_factor(weight, scope, facts)
    if not isinstance(found, LastFactor):
        raise TypeError(weight)
    return found.written(scope, *made)


def _mean(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(values))))


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--pattern", action="append", choices=PATTERNS, help="may be repeated")
    parser.add_argument("--no-plan", action="store_true", help="leave out the planner's variant")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    arguments = parser.parse_args()
    names = arguments.pattern or list(PATTERNS)
    where = machine.current()
    print(f"{where.cpu}, {where.cores} cores, onnxruntime {where.onnxruntime}, {where.os}")
    drawn: dict[str, dict[tuple[str, str], list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.models):
            if arguments.name is not None and task.name not in arguments.name:
                continue
            study = Study(task, Path(folder))
            if not study.layers:
                continue
            drawn[task.name] = errors = study.errors(names)
            rows = [[f"{task.name}, {len(study.layers)} layers", *WAYS, f"{OURS} / {PLAIN}"]]
            for name in names:
                means = [_mean(errors[way, name]) for way in WAYS]
                rows.append([name, *(f"{m:.4f}" for m in means), f"{means[-1] / means[0]:.3f}"])
            print(f"\n{_table(rows)}", flush=True)
            rows = [[task.name, "bytes", "error", "metric"], study.original()]
            for name in [name for name in WHOLE if name in names]:
                rows += [study.whole(way, name) for way in (PLAIN, OURS)]
                if not arguments.no_plan:
                    rows.append(study.planned(study.share(OURS, name)))
            print(f"\n{_table(rows)}", flush=True)
    if arguments.plot is not None:
        _plot(drawn, arguments.plot)


def _plot(drawn: dict[str, dict[tuple[str, str], list[float]]], path: Path) -> None:
    """Draw the errors of every way over the shares of zeros, one axis per model."""
    drawn_names = {name for errors in drawn.values() for _, name in errors}
    shares = [n for n in PATTERNS if n in drawn_names and PATTERNS[n].group == 0]
    figure, axes = plt.subplots(
        1, len(drawn), figsize=(3.4 * len(drawn), 3.4), layout="constrained", squeeze=False
    )
    for axis, (title, errors) in zip(axes[0], drawn.items(), strict=True):
        for way in WAYS:
            means = [_mean(errors[way, name]) for name in shares]
            axis.plot([PATTERNS[n].zeros for n in shares], means, "o-", ms=4, label=way)
        axis.set(title=title, xlabel="share of zeros", yscale="log")
        axis.grid(visible=True, which="both", linewidth=0.3)
    axes[0][0].set_ylabel("relative error of a layer, held-out")
    axes[0][0].legend(fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
