"""Low rank four ways: uniform and planned ranks, plain SVD and our factors, over the share kept.

    python benchmarks/low_rank.py
    python benchmarks/low_rank.py --models DIR --name NAME --kept 0.8 --plot docs/low_rank.png
    python benchmarks/low_rank.py --models DIR --name NAME --save POINTS.json
    python benchmarks/low_rank.py --load POINTS.json --load MORE.json --plot OUT.png

All work on the same sites, with the same ranks on offer, through the same code. Uniform ranks take
at every site the option of least local error within the share: by the weights alone (plain SVD) or
by activations (calibrated). Planned ranks keep no more parameters, or MACs, than the calibrated
ones and go where probes say, here with the singular vectors of the weights and with our factors;
nothing is refitted. Factors are fitted on the first part of the calibration data, the plan rests
on the second, errors are of the third. The metric is that of evaluate.py, on other data again.
Shares are of the cost of the weights that can be factored at a gain. Prints Markdown, a row as
soon as it is there; times are those of the paired benchmark, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from all_models import REPOSITORY, Task, tasks
from pairs import interval, where

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
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.saving import save
from structopt_onnx.rewriting.pipeline import pipeline_text

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from structopt_onnx.api.plans import Plan
    from structopt_onnx.rewriting.cost import Objective

WAYS = ("uniform, plain SVD", "uniform, calibrated", "planned, plain SVD", "planned, ours")
PLAIN, CALIBRATED, PLAINLY, OURS = WAYS
KEPT: dict[Objective, tuple[float, ...]] = {
    "parameters": (0.8, 0.6, 0.4),
    "macs": (0.8, 0.6),
}
TIMED = (0.8, 0.6)
# A model of so many bytes takes minutes a point: fewer shares, and MACs that fall as they do.
_LARGE_BYTES = 32 * 2**20
_LARGE_KEPT: dict[Objective, tuple[float, ...]] = {"parameters": TIMED}
_SAMPLES = 1000
_TIMED_ON = 32
_SECONDS = 60.0
# Plain and calibrated options differ, so what they keep can differ by as much.
_EQUAL = 0.01
# Where MACs fell so much, time is to have fallen too.
_FEWER_MACS = 0.7

COLUMNS = (
    "model",
    "of",
    "kept at the sites",
    "parameters",
    "MACs",
    *(f"error, {way}" for way in WAYS),
    "probe part over final part, ours",
    "metric of the original, then in this order",
    "time, ours",
)


@dataclass(frozen=True)
class Variant:
    """What is left of a model, as shares, and what that does to its outputs."""

    kept: float
    parameters: float
    macs: float
    error: float
    metric: float


@dataclass(frozen=True)
class Point:
    """One model at one share of a cost, up to four ways.

    Parameters
    ----------
    model, objective
        Its name, and the cost that the share is of.
    original
        Metric of the original.
    ways
        By name; without the planned ones where no plan comes down to the share.
    predicted
        Error of ours on the probe part.
    ratio, time
        Time of ours over the original's, and that with its verdict and interval.
    """

    model: str
    objective: Objective
    original: float
    ways: dict[str, Variant]
    predicted: float | None = None
    ratio: float | None = None
    time: str = "-"

    def cells(self) -> list[str]:
        """Write it for the table: uniform calibrated / ours where one number is not enough."""
        shown = [v for way in (CALIBRATED, OURS) if (v := self.ways.get(way)) is not None]
        ours = self.ways.get(OURS)
        found = [self.ways.get(way) for way in WAYS]
        factor = "-" if ours is None else f"{_ratio(self.predicted or 0.0, ours.error):.2f}"
        return [
            self.model,
            self.objective,
            *(
                " / ".join(f"{getattr(v, field):.1%}" for v in shown)
                for field in ("kept", "parameters", "macs")
            ),
            *("-" if v is None else f"{v.error:.4f}" for v in found),
            factor,
            f"{self.original:.4g}: "
            + " / ".join("-" if v is None else f"{v.metric:.4g}" for v in found),
            self.time,
        ]

    @classmethod
    def read(cls, path: Path) -> list[Point]:
        """Read what an earlier run saved."""
        return [
            cls(**{**known, "ways": {way: Variant(**v) for way, v in known["ways"].items()}})
            for known in json.loads(path.read_text("utf-8"))
        ]


class Study:
    """One model and what is offered for it, fitted once.

    Parameters
    ----------
    task
        The model.
    work
        Folder for calibration data and variants.
    """

    def __init__(self, task: Task, work: Path) -> None:
        self.task, self.work = task, work
        self.data = task.calibration(work, _SAMPLES)
        steps = [
            step
            for step in OptimizeOptions().steps()
            if step.exactness is not Exactness.LOSSY or step.name.startswith("factor-")
        ]
        options = OptimizeOptions(
            passes=pipeline_text(steps),
            keep={"parameters": 1},
            benchmark=False,
            benchmark_seconds=_SECONDS,
        )
        self.bench = prepare(task.model, options, self.data, lambda _: None)
        # As `optimize` does it: what the exact passes cost in time must not count against ranks.
        judged = self.bench.samples[:_TIMED_ON]
        self.exact = without_slow_steps(self.bench, run_exact(self.bench), judged)
        fit, self.probe, self.final = self.bench.samples.split()
        # Before statistics are gathered, passes offer what they see in the weights.
        self.plain = [
            Site(step, choice)
            for step in self.bench.lossy_steps
            for choice in self.exact.manager.choices(self.exact.model, step)
        ]
        self.sites = collect_sites(self.bench, self.exact, fit)
        self.original = float(task.metric(task.model))
        self.judge = Judge(self.bench, self.final)

    @property
    def kept(self) -> dict[Objective, tuple[float, ...]]:
        """Shares by cost that are worth their time."""
        return _LARGE_KEPT if self.task.model.stat().st_size > _LARGE_BYTES else KEPT


class Contest:
    """The four ways to come down to a share of one cost.

    Parameters
    ----------
    study
        The model.
    objective
        The cost.
    """

    def __init__(self, study: Study, objective: Objective) -> None:
        self.study, self.objective = study, objective
        options = replace(study.bench.options, keep={objective: 1})
        self.bench = replace(study.bench, options=options)
        self.sites = [Site(site.step, site.choice) for site in study.sites]
        planning = Planning(self.bench, study.exact, self.sites)
        self.trials = Trials(self.bench, planning, study.probe)
        self.cost = self.bench.cost(self.bench.model, self.bench.shapes)
        self.size = sum(
            site.choice.options[0].before.of(objective) for site in single(self.sites, objective)
        )

    def points(self, shares: Sequence[float], *, timed: bool) -> Iterator[Point]:
        """Measure share by share."""
        if not self.size:
            return
        self.trials.probe_all()
        for share in shares:
            yield self._point(share, timed=timed and share in TIMED)

    def _point(self, kept: float, *, timed: bool) -> Point:
        calibrated = self._build(self.sites, kept)
        reached = self.bench.cost(calibrated.model).of(self.objective)
        share = Keep(self.objective, min(1.0, reached / self.cost.of(self.objective)))
        whole = self.bench.cost(self.study.exact.model)
        trial, _ = for_cost(self.bench, self.trials, share, whole)
        plans = {PLAIN: self._build(self.study.plain, kept), CALIBRATED: calibrated}
        if trial is not None:
            plans |= {PLAINLY: self._plainly(trial.chosen), OURS: self.trials.plan(trial)}
        ways = {way: self._variant(way, plan) for way, plan in plans.items()}
        point = Point(
            self.study.task.model.stem,
            self.objective,
            self.study.original,
            ways,
            None if trial is None else trial.measured.error,
        )
        if not timed or trial is None:
            return point
        model, data = self.study.task.model, self.study.data
        found = so.benchmark(model, self._path(OURS), data=data, seconds=_SECONDS)
        return replace(point, ratio=found.ratio, time=interval(found))

    def _path(self, way: str) -> Path:
        return self.study.work / f"{self.study.task.name}_{WAYS.index(way)}.onnx"

    def _build(self, sites: Sequence[Site], kept: float) -> Plan:
        """Take at every site the option of least local error within the share."""
        chosen: list[int | None] = [None] * len(sites)
        for site in single(sites, self.objective):
            options = site.choice.options
            most = kept * options[0].before.of(self.objective)
            fitting = [k for k, o in enumerate(options) if o.after.of(self.objective) <= most]
            if fitting:
                chosen[sites.index(site)] = min(fitting, key=lambda k: options[k].error)
        return Planning(self.bench, self.study.exact, sites).build(chosen)

    def _plainly(self, chosen: Sequence[int | None]) -> Plan:
        """Take the options of a choice as the weights alone make them, or the nearest in size."""
        plain: list[int | None] = [None] * len(self.study.plain)
        for site, k in zip(self.sites, chosen, strict=True):
            if k is None:
                continue
            wanted = site.choice.options[k].after.parameters
            for n, other in enumerate(self.study.plain):
                if (other.step, other.choice.site) == (site.step, site.choice.site):
                    options = other.choice.options
                    sizes = [abs(option.after.parameters - wanted) for option in options]
                    plain[n] = sizes.index(min(sizes))
                    break
        return Planning(self.bench, self.study.exact, self.study.plain).build(plain)

    def _variant(self, way: str, plan: Plan) -> Variant:
        path = self._path(way)
        save(plan.model, path)
        cost = self.bench.cost(plan.model)
        saved = self.cost.of(self.objective) - cost.of(self.objective)
        return Variant(
            kept=1 - saved / self.size,
            parameters=cost.parameters / self.cost.parameters,
            macs=cost.macs / max(1, self.cost.macs),
            error=self.study.judge.error(plan.model),
            metric=float(self.study.task.metric(path)),
        )


def single(sites: Sequence[Site], objective: Objective) -> list[Site]:
    """Return the first site about each weight alone that pays; others fit the same differently."""
    found: dict[frozenset[str], Site] = {}
    for site in sites:
        options, weights = site.choice.options, site.choice.site
        paying = any(o.after.of(objective) < o.before.of(objective) for o in options)
        if len(weights) == 1 and paying:
            found.setdefault(weights, site)
    return list(found.values())


def summary(points: Sequence[Point]) -> str:
    """Say what all models together show."""
    planned = [p for p in points if OURS in p.ways]
    lines = []
    for other in (PLAIN, CALIBRATED, PLAINLY):
        equal = [p for p in planned if p.ways[OURS].kept <= p.ways[other].kept + _EQUAL]
        ratios = [_ratio(p.ways[OURS].error, p.ways[other].error) for p in equal]
        lines.append(f"- error of ours over that of {other}: {_spread(ratios)}")
    factors = [_ratio(p.predicted or 0.0, p.ways[OURS].error) for p in planned]
    lines.append(f"- error on the probe part over that on the final part, ours: {_spread(factors)}")
    fewer = [p for p in planned if p.ways[OURS].macs <= _FEWER_MACS]
    times = [p.ratio for p in fewer if p.ratio is not None]
    lines.append(f"- time where ours has {_FEWER_MACS:.0%} of the MACs at most: {_spread(times)}")
    return "\n".join(lines)


def _ratio(a: float, b: float) -> float:
    return max(a, 1e-12) / max(b, 1e-12)


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return "no such point"
    mean = math.exp(float(np.mean(np.log(ratios))))
    below = sum(ratio < 1 for ratio in ratios)
    return (
        f"geometric mean {mean:.3g}, {min(ratios):.3g} to {max(ratios):.3g}, "
        f"below 1 at {below} of {len(ratios)} points"
    )


def plot(points: Sequence[Point], path: Path) -> None:
    """Draw errors and metrics over what is kept of parameters and MACs, a row a model."""
    models = list(dict.fromkeys(p.model for p in points))
    panels = [(o, field) for o in KEPT for field in ("error", "metric")]
    size = (3.1 * len(panels), 2.1 * len(models) + 0.8)
    figure, axes = plt.subplots(
        len(models), len(panels), figsize=size, squeeze=False, layout="constrained"
    )
    for row, model in zip(axes, models, strict=True):
        for axis, (objective, field) in zip(row, panels, strict=True):
            mine = [p for p in points if (p.model, p.objective) == (model, objective)]
            for way, marker in zip(WAYS, "xos^", strict=True):
                shown = [v for p in mine if (v := p.ways.get(way)) is not None]
                line = sorted((getattr(v, objective), getattr(v, field)) for v in shown)
                if line:
                    axis.plot(*zip(*line, strict=True), marker=marker, markersize=4, label=way)
            if not mine:
                axis.axis("off")
                continue
            if field == "error":
                axis.set_yscale("log")
                axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
                axis.yaxis.set_minor_formatter(lambda y, _: f"{y:g}" if f"{y:e}"[0] in "25" else "")
            else:
                axis.axhline(mine[0].original, color="grey", linewidth=0.8)
            axis.xaxis.set_major_formatter(lambda x, _: f"{x:.0%}")
            axis.tick_params(labelsize=7, which="both")
            axis.grid(alpha=0.3, which="both")
            kept = "MACs" if objective == "macs" else objective
            axis.set_title(f"{model}: {field} over {kept}", fontsize=8)
    axes[0][0].legend(fontsize=6)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--models", action="append", type=Path, metavar="DIR", help="may be repeated"
    )
    parser.add_argument("--name", action="append", help="model to run; may be repeated")
    parser.add_argument("--kept", action="append", type=float, help="share; may be repeated")
    parser.add_argument("--cost", action="append", choices=KEPT, help="may be repeated")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    parser.add_argument("--no-time", action="store_true")
    parser.add_argument("--save", type=Path, metavar="OUT.json", help="what was measured")
    parser.add_argument(
        "--load",
        action="append",
        type=Path,
        default=[],
        metavar="JSON",
        help="show what was saved; measures only the models of --models, if any, beside it",
    )
    arguments = parser.parse_args()
    print(f"{where()}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
    points = [point for path in arguments.load for point in Point.read(path)]
    for point in points:
        print(f"| {' | '.join(point.cells())} |", flush=True)
    folders = arguments.models or ([] if arguments.load else [REPOSITORY / "models"])
    with tempfile.TemporaryDirectory() as work:
        for task in (task for folder in folders for task in tasks(folder)):
            if arguments.name is not None and task.name not in arguments.name:
                continue
            study = Study(task, Path(work))
            for objective in arguments.cost or study.kept:
                shares = arguments.kept or study.kept.get(objective, ())
                # MACs say more of time; where both fall alike, parameters stand for them.
                timed = not arguments.no_time and objective == list(study.kept)[-1]
                for point in Contest(study, objective).points(shares, timed=timed):
                    points.append(point)
                    print(f"| {' | '.join(point.cells())} |", flush=True)
                    if arguments.save is not None:
                        arguments.save.write_text(json.dumps([asdict(p) for p in points]), "utf-8")
    print(f"\n{summary(points)}")
    if arguments.plot is not None and points:
        plot(points, arguments.plot)


if __name__ == "__main__":
    main()
