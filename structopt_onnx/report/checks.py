"""What was checked and measured, as tables: outputs of two models, drift, times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rich.console import Group

from structopt_onnx.report.figures import count, error, mebibytes, milliseconds, name, plural
from structopt_onnx.report.grid import Grid
from structopt_onnx.report.inputs import inputs_line
from structopt_onnx.report.layout import bullets, line, table_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from structopt_onnx.report.record import SampleReport
    from structopt_onnx.runtime.comparison import Comparison, Timing
    from structopt_onnx.validation.metrics import OutputMetrics
    from structopt_onnx.validation.models import ModelValidation
    from structopt_onnx.validation.second_opinion import SecondOpinion

_MOST_OUTPUTS = 12
_MOST_FAILURES = 8


class _ValidationReport(Protocol):
    """A `structopt_onnx.ValidationReport`."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def samples(self) -> SampleReport: ...
    @property
    def validation(self) -> ModelValidation: ...
    @property
    def drift(self) -> object | None: ...
    @property
    def passed(self) -> bool: ...
    @property
    def reference(self) -> SecondOpinion | None: ...


def validation_summary(validation: ModelValidation) -> str:
    """Say the verdict on one line."""
    shipped = validation.shipped
    inputs = plural(shipped.samples, "synthetic input" if shipped.synthetic else "sample")
    found = plural(len(validation.failures), "failure")
    if validation.passed:
        return f"passed on {inputs}"
    # Models that take or give other things than the original are not run on its inputs.
    return f"FAILED on {inputs}: {found}" if shipped.samples else f"FAILED without a run: {found}"


def render_validation(report: _ValidationReport) -> RenderableType:
    """Lay out what `structopt_onnx.validate` found: the verdict, the numbers, the drift."""
    verdict = validation_summary(report.validation)
    parts: list[RenderableType] = [line(f"{report.b} against {report.a}: {verdict}", "bold")]
    if report.samples.synthetic:
        parts.append(line(f"note: {inputs_line(report.samples, '--data')}", "yellow"))
    parts.append(validation_table(report.validation))
    if report.reference is not None:
        parts += _opinion(report.reference)
    drift = () if report.drift is None else (line(str(report.drift)),)
    return Group(*parts, *drift)


def _opinion(opinion: SecondOpinion) -> Iterator[RenderableType]:
    """Lay out what the reference evaluator found: B against A, and onnxruntime against it."""
    found = opinion.validation
    if found is None:
        yield line(f"reference evaluator: not run ({opinion.not_run})")
        return
    verdict = "FAILED" if opinion.failures else "passed"
    yield line(f"reference evaluator: {verdict} on {plural(found.samples, 'sample')}")
    rows = tuple(
        (name(o.name), error(o.error), error(opinion.a.get(o.name)), error(opinion.b.get(o.name)))
        for o in found.outputs
    )
    headers = ("output", "B against A", "A against onnxruntime", "B against onnxruntime")
    grid = Grid(headers, rows, (1, 2, 3))
    if rows:
        yield table_of(grid.first(_MOST_OUTPUTS))
    if opinion.failures:
        yield bullets(opinion.failures[:_MOST_FAILURES])


def validation_table(validation: ModelValidation) -> RenderableType:
    """Lay out the metrics by output, the failures and what was not shown.

    "Plain" is the error with the runtime's graph optimizations off, "shipped" with them on;
    "runtime's own" that of the original with them on against itself without.
    """
    grid = output_grid(validation)
    some = grid.first(_MOST_OUTPUTS)
    parts: list[RenderableType] = []
    if some.rows:
        parts.append(table_of(some))
    if len(grid.rows) > len(some.rows):
        parts.append(line(f"and {len(grid.rows) - len(some.rows)} outputs with smaller errors"))
    failures = validation.failures
    if failures:
        parts.append(line("Failures:"))
        parts.append(bullets(failures[:_MOST_FAILURES]))
        if len(failures) > _MOST_FAILURES:
            parts.append(line(f"and {len(failures) - _MOST_FAILURES} more"))
    notes = dict.fromkeys([*validation.exact.notes, *validation.shipped.notes])
    if notes:
        parts.append(bullets(notes))
    return Group(*parts)


def output_grid(validation: ModelValidation) -> Grid:
    """Put every output in a row, the largest error first; see `validation_table`."""
    shipped = {metrics.name: metrics for metrics in validation.shipped.outputs}
    plain = {metrics.name: metrics for metrics in validation.exact.outputs}
    names = dict.fromkeys([*shipped, *plain])
    rows = tuple(
        _output_row(output, plain.get(output), shipped.get(output), validation)
        for output in sorted(names, key=lambda o: -_error_of(shipped.get(o)))
    )
    headers: tuple[str, ...]
    headers = ("output", "plain", "shipped", "limit", "max abs", "SNR dB", "top-1", "runtime's own")
    if validation.shipped.max_quanta is not None:
        headers = (*headers, f"quanta of {validation.shipped.max_quanta:g}")
    return Grid(headers, rows, tuple(range(1, len(headers))))


def timing_rows(a: Timing, b: Timing | None) -> Iterator[tuple[str, str, str, float, float]]:
    """Yield the times and memory of two models: what, text of both, numbers of both.

    With one model the second text is empty and the second number is the first.
    """
    figures = (
        ("p50, ms", "p50", milliseconds),
        ("p90, ms", "p90", milliseconds),
        ("session creation, ms", "session_creation_ms", milliseconds),
        ("first run, ms", "first_run_ms", milliseconds),
    )
    for what, field, write in figures:
        first = getattr(a, field)
        second = first if b is None else getattr(b, field)
        if first is not None and second is not None:
            yield what, write(first), "" if b is None else write(second), first, second
    first, second = a.peak_rss_bytes, a.peak_rss_bytes if b is None else b.peak_rss_bytes
    if first is not None and second is not None:
        text = "" if b is None else mebibytes(second)
        yield "peak memory, MiB", mebibytes(first), text, float(first), float(second)


def speed_summary(comparison: Comparison, option: str) -> str:
    """Say on one line what was measured, or what it would take.

    Parameters
    ----------
    comparison
        The measurement.
    option
        The option that gives it more time.
    """
    needed = comparison.needed_seconds
    if comparison.verdict != "not measured" or needed is None:
        return comparison.summary()
    times = " -> ".join(
        f"{milliseconds(timing.p50)} ms" for timing in (comparison.a, comparison.b) if timing
    )
    wanted = f"needs about {count(needed)} s, {option} {needed} allows it"
    return f"not measured: {wanted}; p50 {times}"


def comparison_notes(comparison: Comparison) -> Sequence[str]:
    """Say what a reader needs to judge the times."""
    lines = []
    if comparison.reason and comparison.verdict not in {"faster", "slower"}:
        lines.append(f"{comparison.verdict}: {comparison.reason}")
    deployed = comparison.deployed
    if deployed is not None:
        times = f"{milliseconds(deployed.p50_a)} ms"
        if deployed.p50_b is not None:
            times += f" -> {milliseconds(deployed.p50_b)} ms"
        ratio = "" if deployed.ratio is None else f", x{deployed.ratio:.3f}"
        noisy = "; the machine was busy, so these are noisy" if deployed.noisy else ""
        threads = plural(deployed.threads, "thread")
        lines.append(f"wall clock with {threads}: p50 {times}{ratio}{noisy}")
    machine = comparison.machine
    lines.append(
        f"{comparison.provider} on {machine.cpu}, {plural(machine.cores, 'core')}, "
        f"onnxruntime {machine.onnxruntime}"
    )
    return lines


def _output_row(
    output: str,
    plain: OutputMetrics | None,
    shipped: OutputMetrics | None,
    validation: ModelValidation,
) -> tuple[str, ...]:
    metrics = shipped or plain
    limit = validation.shipped.limits.get(output, validation.exact.limits.get(output))
    top1 = None if metrics is None else metrics.top1_agreement
    snr = None if metrics is None else metrics.snr_db
    return (
        name(output),
        error(None if plain is None else plain.error),
        error(None if shipped is None else shipped.error),
        "none" if limit == float("inf") else error(limit),
        error(None if metrics is None else metrics.max_abs),
        "-" if snr is None else "infinite" if snr == float("inf") else f"{snr:.1f}",
        "-" if top1 is None else f"{100 * top1:.1f}%",
        error(validation.noise.get(output)),
        *(
            (error(_quanta(output, validation)),)
            if validation.shipped.max_quanta is not None
            else ()
        ),
    )


def _quanta(output: str, validation: ModelValidation) -> float | None:
    checks = (validation.exact, validation.shipped)
    return max((found.quanta[output] for found in checks if output in found.quanta), default=None)


def _error_of(metrics: OutputMetrics | None) -> float:
    return float("inf") if metrics is None else metrics.error
