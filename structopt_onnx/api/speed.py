"""Whether rewrites pay in time: candidates against the original, and steps that make it slower."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from structopt_onnx.api.exact import ExactStage, first_bad, run_exact
from structopt_onnx.api.inputs import sample_report
from structopt_onnx.errors import ModelError
from structopt_onnx.model.saving import save
from structopt_onnx.report.inputs import sizes
from structopt_onnx.runtime.benchmark import BenchmarkSettings, benchmark

if TYPE_CHECKING:
    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.runtime.comparison import Comparison


def compare(bench: Bench, path: Path, samples: Samples) -> Comparison:
    """Time a candidate's file against the original.

    Raises
    ------
    ModelError
        When the measuring process dies.
    """
    settings = BenchmarkSettings(
        seconds=bench.options.benchmark_seconds,
        threads=bench.options.threads,
        seed=bench.options.seed,
        libraries=bench.options.libraries,
    )
    if isinstance(bench.reference, Path):
        return benchmark(bench.reference, path, samples, settings)
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
        original = Path(folder) / "original.onnx"
        original.write_bytes(bench.reference)
        return benchmark(original, path, samples, settings)


def is_slower(bench: Bench, comparison: Comparison) -> bool:
    """Whether a candidate is significantly slower by more than the user tolerates.

    Never for a target that this machine only stands in for.
    """
    options = bench.options
    allowed = 1.0 if options.objective == "time" else 1.0 + options.tolerate
    ratio = comparison.ratio if bench.target.is_measured else None
    return comparison.verdict == "slower" and ratio is not None and ratio > allowed


def told(comparison: Comparison, samples: Samples) -> str:
    """Say what was measured, and on what where the inputs are made up."""
    if not samples.synthetic:
        return comparison.summary()
    listed = sizes(sample_report(samples).shapes)
    return f"{comparison.summary()}; on made-up inputs ({listed}): --calibration may change it"


def without_slow_steps(bench: Bench, exact: ExactStage, samples: Samples) -> ExactStage:
    """Leave out exact steps that make the model significantly slower.

    What fewer operators cost depends on what the runtime makes of them: it may fuse what a
    rewrite uncovered into a kernel that is slower. The step to blame is found by bisection over
    the patches applied, as one that changes the outputs is.

    Returns
    -------
    ExactStage
        `exact` itself when it is not slower, or can't be measured.
    """
    while exact.manager.record.applied and bench.target.is_measured and not bench.clock.over():
        found = _timed(bench, exact.model, samples)
        if found is None or not is_slower(bench, found):
            break
        deny = exact.deny

        def is_bad(fuel: int) -> bool:
            model = bench.manager(deny, fuel).run(bench.model.clone(), bench.exact_steps)  # noqa: B023 - called within this turn only
            timed = _timed(bench, model, samples)
            return timed is not None and is_slower(bench, timed)

        applied = exact.manager.record.applied
        culprit = applied[first_bad(len(applied), is_bad) - 1]
        line = f"{culprit.step}: {told(found, samples)}"
        exact = run_exact(bench, deny | {culprit.step}, (*exact.rolled_back, line))
    return exact


def _timed(bench: Bench, model: ir.Model, samples: Samples) -> Comparison | None:
    """Time a model in memory; None where it can't be."""
    with bench.clock.stage("benchmark"), tempfile.TemporaryDirectory() as folder:
        bench.progress("benchmark of the exact rewrites")
        path = Path(folder) / "candidate.onnx"
        save(model, path)
        try:
            return compare(bench, path, samples)
        except ModelError:
            return None
