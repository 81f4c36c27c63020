"""Runs two models on the same samples and judges whether they may stand for each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from structopt_onnx.errors import DataError, ModelError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.validation.interface import Port, port_differences
from structopt_onnx.validation.limits import Limits
from structopt_onnx.validation.metrics import OutputComparison, OutputMetrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from structopt_onnx.validation.quanta import Quanta

    Feeds = dict[str, NDArray[np.generic]]


class Runner(Protocol):
    """What is compared: anything that tells its inputs and outputs and can be run."""

    @property
    def inputs(self) -> Sequence[Port]:
        """Inputs that a run needs, in order."""

    @property
    def outputs(self) -> Sequence[Port]:
        """Outputs that a run gives, in order."""

    def run(self, feeds: dict[str, NDArray[Any]], /) -> Mapping[str, Any]:
        """Return the outputs of one run by name."""


@dataclass(frozen=True)
class Validation:
    """The verdict on a candidate and the numbers behind it.

    Attributes
    ----------
    outputs
        Metrics by output, in the reference's order; empty where the interfaces differ so much
        that nothing could be run.
    failures
        One line per reason to reject the candidate, naming output, sample, value and limit.
    samples
        Number of samples that both models were run on.
    limits
        Largest error that each output was allowed.
    optimized
        Whether the runtime's own graph optimizations were on.
    synthetic
        Whether the samples were made up.
    notes
        What was not shown, though nothing failed: outputs empty in every sample.
    quanta
        Quanta that each output is off, where they are limited.
    max_quanta
        How many it may be off.
    """

    outputs: tuple[OutputMetrics, ...]
    failures: tuple[str, ...]
    samples: int
    limits: Mapping[str, float]
    optimized: bool
    synthetic: bool
    notes: tuple[str, ...] = ()
    quanta: Mapping[str, float] = field(default_factory=dict)
    max_quanta: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate may stand for the reference."""
        return not self.failures

    @property
    def error(self) -> float:
        """Largest error of any output; 0 where there is none."""
        return max((output.error for output in self.outputs), default=0.0)


def compare(
    reference: Runner,
    candidate: Runner,
    samples: Iterable[dict[str, NDArray[Any]]],
    *,
    max_error: float | Mapping[str, float] | None = None,
    unlimited: bool = False,
    exactness: Exactness = Exactness.ROUNDING,
    arithmetic: str | None = None,
    quanta: Quanta | None = None,
    optimized: bool = False,
    synthetic: bool = False,
) -> Validation:
    """Compare the outputs of two models, one sample at a time.

    Parameters
    ----------
    reference, candidate
        The original and what is to stand for it; both have to be deterministic, which is tried on
        the original by running the first sample twice.
    samples
        Inputs of one run each; a sample is released before the next one is asked for.
    max_error
        Largest error (`OutputMetrics.error`) of every output, or by output name. Outputs without
        one get the tolerance of their dtype and `exactness`.
    unlimited
        Set no limit on errors: something else judges them. Shapes, types, NaN and infinities are
        still checked.
    exactness
        What the candidate promises.
    arithmetic
        Narrowest float format in which the reference computes (`arithmetic_dtype`), whose
        rounding every float output is allowed.
    quanta
        How many quanta outputs may be off, instead of the default tolerance.
    optimized, synthetic
        Kept in the result.

    Returns
    -------
    validation
        The verdict; a difference is reported there, never raised.

    Raises
    ------
    DataError
        Nothing was compared: no samples, no outputs, or no output has an element in any sample.
    ModelError
        The reference can't be run on a sample.
    UsageError
        `max_error` is no budget for these models.
    """
    names = [port.name for port in reference.outputs]
    limits = Limits.of(max_error, exactness, names, arithmetic, unlimited=unlimited, quanta=quanta)
    failures = [
        *port_differences("input", reference.inputs, candidate.inputs),
        *port_differences("output", reference.outputs, candidate.outputs),
    ]
    if not names:
        raise DataError("the original has no outputs, so there is nothing to compare")
    outputs: tuple[OutputMetrics, ...] = ()
    count = 0
    if _can_be_run(reference, candidate):
        pairs = {name: OutputComparison(name) for name in names}
        for sample in samples:
            expected = reference.run(sample)
            if count == 0:
                failures += _unsteady(expected, reference.run(sample), limits)
            try:
                found = candidate.run(sample)
            except ModelError as error:
                failures.append(f"sample {count}: the candidate can't be run: {error}")
                break
            for name, pair in pairs.items():
                pair.update(expected[name], found[name])
            count += 1
        outputs = tuple(pair.result() for pair in pairs.values()) if count else ()
        if not failures and count == 0:
            raise DataError("there are no samples, so nothing was compared")
        if not failures and not any(output.elements for output in outputs):
            raise DataError(
                f"every output is empty in all of {count} samples, so nothing was compared; "
                "give samples without empty dimensions"
            )
    failures += [line for output in outputs for line in limits.failures(output)]
    return Validation(
        outputs=outputs,
        failures=tuple(failures),
        samples=count,
        limits={output.name: limits.limit(output) for output in outputs},
        optimized=optimized,
        synthetic=synthetic,
        notes=(
            *(
                f"output {output.name!r} is empty in every sample: its values were not compared"
                for output in outputs
                if output.elements == 0
            ),
            *(("no error limit was set: shapes, types and NaN were checked",) * unlimited),
        ),
        quanta={o.name: off for o in outputs if (off := limits.count(o)) is not None},
        max_quanta=None if quanta is None else quanta.most,
    )


def _can_be_run(reference: Runner, candidate: Runner) -> bool:
    # Order is a failure, yet runs go by name: numbers say more than none.
    takes = {port.name: port.type for port in reference.inputs}
    gives = {port.name for port in reference.outputs}
    return takes == {port.name: port.type for port in candidate.inputs} and gives <= {
        port.name for port in candidate.outputs
    }


def output_errors(
    first: Runner, second: Runner, samples: Iterable[dict[str, NDArray[Any]]]
) -> dict[str, float]:
    """Measure the errors, by output, of one runner against another; no verdict.

    Parameters
    ----------
    first, second
        Two ways to run one model.
    samples
        Inputs of one run each.

    Returns
    -------
    errors
        `OutputMetrics.error` by output name.
    """
    pairs = {port.name: OutputComparison(port.name) for port in first.outputs}
    for sample in samples:
        expected, found = first.run(sample), second.run(sample)
        for name, pair in pairs.items():
            pair.update(expected[name], found[name])
    return {name: pair.result().error for name, pair in pairs.items()}


def _unsteady(first: Mapping[str, Any], second: Mapping[str, Any], limits: Limits) -> list[str]:
    """Tell which outputs of one model differ between two runs of one sample."""
    rounding = Limits(Exactness.ROUNDING, {}, limits.arithmetic)
    lines = []
    for name in first:
        pair = OutputComparison(name)
        pair.update(first[name], second[name])
        metrics = pair.result()
        if metrics.error > rounding.limit(metrics):
            lines.append(
                f"output {name!r}: the original is not deterministic: two runs of sample 0 "
                f"differ by {metrics.error:.3g}"
            )
    return lines
