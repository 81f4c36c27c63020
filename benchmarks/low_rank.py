"""Low rank four ways: plain SVD, calibrated and planned, over the share of a cost kept.

    python benchmarks/low_rank.py
    python benchmarks/low_rank.py --models DIR --name NAME --kept 0.8 --plot docs/low_rank.png
    python benchmarks/low_rank.py --models DIR --cost macs

All work on the same sites, with the same ranks on offer, through the same code. Uniform ranks take
at every site the option of least local error within the share: by the weights alone (plain SVD) or
by activations (calibrated). Planned ranks spread the same parameters, or MACs, by what probes
showed; the fourth way takes planned ranks with the factors of a plain SVD. Factors are fitted on
the first part of the calibration data, the plan rests on the second, errors are of the third. The
metric is that of evaluate.py, on other data again. Shares are of the cost of the weights that can
be factored at a gain. Prints Markdown tables; times are those of the paired benchmark, one thread.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from all_models import REPOSITORY, Task, tasks

import structopt_onnx as so
from structopt_onnx.api.bench import prepare
from structopt_onnx.api.budgets import for_cost
from structopt_onnx.api.exact import run_exact
from structopt_onnx.api.judge import Judge
from structopt_onnx.api.keep import Keep
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.api.plans import Planning
from structopt_onnx.api.sites import Site, collect_sites
from structopt_onnx.api.speed import without_slow_steps
from structopt_onnx.api.trials import Trials
from structopt_onnx.model.saving import save
from structopt_onnx.runtime import machine

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.api.plans import Plan
    from structopt_onnx.rewriting.cost import Objective

WAYS = ("plain SVD", "calibrated", "planned", "planned ranks, plain SVD")
KEPT = (0.9, 0.8, 0.7, 0.6, 0.5)
TIMED = (0.8, 0.6)
_SAMPLES = 1000
_TIMED_ON = 32
# Plain and calibrated options differ, so what they keep can differ by as much.
_EQUAL = 0.01


@dataclass
class Point:
    """One variant: what is left of the model, and what that does to its outputs."""

    way: str
    kept: float
    parameters: float
    macs: float
    error: float
    cosine: float
    metric: str
    asked: float = 1.0
    predicted: float | None = None
    time: str = ""


class Study:
    """One model, its sites fitted and probed.

    Parameters
    ----------
    task
        The model.
    work
        Folder for calibration data and variants.
    objective
        The cost that shares are of.
    """

    def __init__(self, task: Task, work: Path, objective: Objective) -> None:
        self.task, self.work, self.objective = task, work, objective
        self.data = task.calibration(work, _SAMPLES)
        options = OptimizeOptions(keep={objective: 1}, benchmark=False)
        self.bench = prepare(task.model, options, self.data, lambda _: None)
        samples = self.bench.samples
        # As `optimize` does it: what the exact passes cost in time must not count against ranks.
        self.exact = without_slow_steps(self.bench, run_exact(self.bench), samples[:_TIMED_ON])
        fit, probe, self.final = self.bench.samples.split()
        # Before statistics are gathered, passes offer what they see in the weights.
        manager = self.exact.manager
        self.plain = [
            Site(step, choice)
            for step in self.bench.lossy_steps
            for choice in manager.choices(self.exact.model, step)
        ]
        self.sites = collect_sites(self.bench, self.exact, fit)
        self.trials = Trials(self.bench, Planning(self.bench, self.exact, self.sites), probe)
        self.trials.probe_all()
        self.cost = self.bench.cost(self.bench.model, self.bench.shapes)
        self.size = sum(
            site.choice.options[0].before.of(objective) for site in single(self.sites, objective)
        )

    def points(self, kept: float, *, timed: bool, with_metric: bool) -> list[Point]:
        """Measure all three ways at one share, the planned one at what calibrated ranks keep."""
        calibrated = self._build(self.sites, kept)
        reached = self.bench.cost(calibrated.model).of(self.objective)
        share = Keep(self.objective, min(1.0, reached / self.cost.of(self.objective)))
        trial, _ = for_cost(self.bench, self.trials, share, self.bench.cost(self.exact.model))
        plans = [
            (WAYS[0], self._build(self.plain, kept), None),
            (WAYS[1], calibrated, None),
        ]
        if trial is not None:
            plans.append((WAYS[2], self.trials.plan(trial), trial.measured.error))
            plans.append((WAYS[3], self._plainly(trial.chosen), None))
        points = []
        for way, plan, predicted in plans:
            point = self._point(way, plan, with_metric=with_metric)
            point.asked, point.predicted = kept, predicted
            if timed and way == WAYS[2]:
                found = so.benchmark(self.task.model, self._path(way), data=self.data, seconds=60)
                point.time = found.summary()
            points.append(point)
        return points

    def _path(self, way: str) -> Path:
        return self.work / f"{self.task.name}_{way.replace(' ', '_')}.onnx"

    def _build(self, sites: Sequence[Site], kept: float) -> Plan:
        """Take at every site the option of least local error within the share."""
        chosen: list[int | None] = [None] * len(sites)
        for site in single(sites, self.objective):
            options = site.choice.options
            most = kept * options[0].before.of(self.objective)
            fitting = [k for k, o in enumerate(options) if o.after.of(self.objective) <= most]
            if fitting:
                chosen[sites.index(site)] = min(fitting, key=lambda k: options[k].error)
        return Planning(self.bench, self.exact, sites).build(chosen)

    def _plainly(self, chosen: Sequence[int | None]) -> Plan:
        """Take the options of a choice as the weights alone make them, or the nearest in size."""
        plain: list[int | None] = [None] * len(self.plain)
        for site, k in zip(self.sites, chosen, strict=True):
            if k is None:
                continue
            wanted = site.choice.options[k].after.parameters
            for n, other in enumerate(self.plain):
                if (other.step, other.choice.site) == (site.step, site.choice.site):
                    options = other.choice.options
                    sizes = [abs(option.after.parameters - wanted) for option in options]
                    plain[n] = sizes.index(min(sizes))
                    break
        return Planning(self.bench, self.exact, self.plain).build(plain)

    def _point(self, way: str, plan: Plan, *, with_metric: bool) -> Point:
        path = self._path(way)
        save(plan.model, path)
        cost = self.bench.cost(plan.model)
        saved = self.cost.of(self.objective) - cost.of(self.objective)
        return Point(
            way=way,
            kept=1 - saved / self.size,
            parameters=cost.parameters / self.cost.parameters,
            macs=cost.macs / max(1, self.cost.macs),
            error=Judge(self.bench, self.final).error(plan.model),
            cosine=self._cosine(path),
            metric=self.task.metric(path) if with_metric else "-",
        )

    def _cosine(self, path: Path) -> float:
        """Return the mean cosine of the first output to the original's, row by row."""
        original, candidate = (self.bench.session(p) for p in (self.bench.reference, path))
        name = original.outputs[0].name
        cosines: list[float] = []
        for n in range(len(self.final)):
            feeds = self.final[n]
            a, b = (np.float64(s.run(feeds)[name]) for s in (original, candidate))
            a, b = (np.atleast_2d(x).reshape(-1, x.shape[-1] if x.ndim else 1) for x in (a, b))
            norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
            cosines += ((a * b).sum(1)[norms > 0] / norms[norms > 0]).tolist()
        return float(np.mean(cosines)) if cosines else math.nan


def single(sites: Sequence[Site], objective: Objective) -> list[Site]:
    """Return the first site about each weight alone that pays; others fit the same differently."""
    found: dict[frozenset[str], Site] = {}
    for site in sites:
        options, weights = site.choice.options, site.choice.site
        paying = any(o.after.of(objective) < o.before.of(objective) for o in options)
        if len(weights) == 1 and paying:
            found.setdefault(weights, site)
    return list(found.values())


def table(study: Study, points: Sequence[Point], original: str) -> str:
    """Write what was measured of one model."""
    sites = len(single(study.sites, study.objective))
    whole = f"{study.size:,} of {study.cost.of(study.objective):,} {study.objective}"
    columns = "kept at the sites|way|parameters|MACs|error, final part|error, probe part"
    columns += "|mean cosine|metric|time"
    lines = [
        f"## {study.task.name}\n",
        f"{sites} sites with {whole}; metric of the original {original}\n",
        f"| {columns.replace('|', ' | ')} |",
        "|---" * 9 + "|",
    ]
    lines += [
        f"| {p.kept:.1%} | {p.way} | {p.parameters:.1%} | {p.macs:.1%} | {p.error:.4f} "
        f"| {'-' if p.predicted is None else f'{p.predicted:.4f}'} | {p.cosine:.4f} | {p.metric} "
        f"| {p.time} |"
        for p in points
    ]
    return "\n".join(lines)


def summary(found: dict[str, list[Point]]) -> str:
    """Compare planned with plain where planned keeps no more, over all models and shares."""
    ratios = []
    for points in found.values():
        plain = {p.asked: p for p in points if p.way == WAYS[0]}
        ratios += [
            max(p.error, 1e-12) / max(plain[p.asked].error, 1e-12)
            for p in points
            if p.way == WAYS[2] and p.kept <= plain[p.asked].kept + _EQUAL
        ]
    if not ratios:
        return "no plan to compare"
    mean = math.exp(float(np.mean(np.log(ratios))))
    return (
        f"error of planned over that of plain SVD at no more cost: geometric mean {mean:.2f}, "
        f"{min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} points of {len(found)} models"
    )


def plot(found: dict[str, list[Point]], path: Path) -> None:
    """Draw the error over the share kept, a panel a model."""
    columns = min(4, len(found))
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 2.8 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(found) :]:
        axis.axis("off")
    for axis, (name, points) in zip(axes.flat, found.items(), strict=False):
        for way, marker in zip(WAYS, "xo^v", strict=True):
            mine = sorted((p.kept, p.error) for p in points if p.way == way)
            axis.semilogy(*zip(*mine, strict=True), marker=marker, label=way) if mine else None
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3, which="both")
    axes[0][0].legend(fontsize=8)
    figure.supxlabel("share of the cost kept at the sites")
    figure.supylabel("relative L2 error of the outputs, final part")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the tables and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, default=REPOSITORY / "models", metavar="DIR")
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--kept", action="append", type=float, help="share; may be repeated")
    parser.add_argument("--cost", choices=("parameters", "macs"), default="parameters")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    parser.add_argument("--no-metric", action="store_true")
    parser.add_argument("--no-time", action="store_true")
    arguments = parser.parse_args()
    where = machine.current()
    print(f"{where.cpu}, {where.cores} cores, onnxruntime {where.onnxruntime}, {where.os}\n")
    found: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(arguments.models):
            if arguments.name is not None and task.name not in arguments.name:
                continue
            study = Study(task, Path(folder), arguments.cost)
            if not single(study.sites, arguments.cost):
                print(f"## {task.name}\n\nno weight can be factored at a gain\n", flush=True)
                continue
            original = "-" if arguments.no_metric else task.metric(task.model)
            points = found[task.name] = []
            for kept in arguments.kept or KEPT:
                points += study.points(
                    kept,
                    timed=kept in TIMED and not arguments.no_time,
                    with_metric=not arguments.no_metric,
                )
            print(table(study, points, original) + "\n", flush=True)
    print(summary(found))
    if arguments.plot is not None and found:
        plot(found, arguments.plot)


if __name__ == "__main__":
    main()
