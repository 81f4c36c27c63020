"""The exact stage: passes that hold for every input, checked against the original."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.validation.models import ModelValidation, validate_models

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.rewriting.manager import PassManager

# Enough to see a wrong rewrite; the saved file is validated on more.
_CHECKED_SAMPLES = 4


@dataclass(frozen=True)
class ExactStage:
    """Result of the exact passes.

    Parameters
    ----------
    model
        The rewritten model.
    manager
        The manager that made it; its record goes on in later stages.
    deny
        Steps rolled back because the outputs changed, or the time of a run rose.
    rolled_back
        One line per such step.
    """

    model: ir.Model
    manager: PassManager
    deny: frozenset[str]
    rolled_back: tuple[str, ...]


def run_exact(
    bench: Bench, deny: frozenset[str] = frozenset(), rolled_back: tuple[str, ...] = ()
) -> ExactStage:
    """Run the exact passes and roll back any step that changes the outputs.

    Parameters
    ----------
    bench
        The run.
    deny, rolled_back
        Steps rolled back before, and why.
    """
    while True:
        manager = bench.manager(deny, bench.options.fuel)
        with bench.clock.stage("exact passes"):
            model = manager.run(bench.model.clone(), bench.exact_steps)
        if not manager.record.applied:
            return ExactStage(model, manager, deny, rolled_back)
        with bench.clock.stage("check"):
            bench.progress("check")
            validation = check(bench, model)
        if validation.passed:
            return ExactStage(model, manager, deny, rolled_back)

        def is_bad(fuel: int) -> bool:
            limited = bench.manager(deny, fuel)  # noqa: B023 - called within this turn only
            return not check(bench, limited.run(bench.model.clone(), bench.exact_steps)).passed

        number = first_bad(len(manager.record.applied), is_bad)
        culprit = manager.record.applied[number - 1]
        what = f"{culprit.step}: rewrite {number} ({culprit.title}) changed the outputs"
        rolled_back += (f"{what}: {validation.failures[0]}",)
        deny |= {culprit.step}


def check(bench: Bench, model: ir.Model) -> ModelValidation:
    """Compare an exactly rewritten model with the original on a few samples."""
    return validate_models(
        bench.reference,
        model,
        bench.samples[:_CHECKED_SAMPLES],
        exactness=Exactness.weakest(step.exactness for step in bench.exact_steps),
        synthetic=bench.samples.synthetic,
        threads=bench.options.threads,
        libraries=bench.options.libraries,
    )


def first_bad(count: int, is_bad: Callable[[int], bool]) -> int:
    """Find the first patch that breaks a model, by bisection.

    Parameters
    ----------
    count
        Number of patches; with all of them applied the model is bad.
    is_bad
        Whether the model with the first `n` patches is bad, for ``0 < n < count``.

    Returns
    -------
    int
        The smallest n such that n patches are bad and n - 1 are not.
    """
    good, bad = 0, count
    while bad - good > 1:
        middle = (good + bad) // 2
        if is_bad(middle):
            bad = middle
        else:
            good = middle
    return bad
