"""What `bisect` found, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rich.console import Group

from structopt_onnx.report.figures import error, plural
from structopt_onnx.report.inputs import made_up
from structopt_onnx.report.layout import line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from structopt_onnx.report.record import SampleReport
    from structopt_onnx.rewriting.record import Applied


class _Bisection(Protocol):
    """A `structopt_onnx.Bisection`."""

    @property
    def optimized(self) -> str: ...
    @property
    def samples(self) -> SampleReport: ...
    @property
    def max_error(self) -> float | None: ...
    @property
    def culprit(self) -> Applied | None: ...
    @property
    def failure(self) -> str | None: ...
    @property
    def error(self) -> float: ...
    @property
    def patches(self) -> int: ...
    @property
    def evaluations(self) -> int: ...


def render_bisection(found: _Bisection) -> RenderableType:
    """Lay out which rewrite is to blame, and how far the search went."""
    return Group(*_lines(found))


def _lines(found: _Bisection) -> Iterator[RenderableType]:
    culprit = found.culprit
    if culprit is not None:
        where = f" at {culprit.node}" if culprit.node else ""
        yield line(f"rewrite {culprit.number}, by {culprit.step}{where}: {culprit.title}", "bold")
        yield line(f"with it: {found.failure or error(found.error)}")
    elif found.failure is not None:
        yield line(f"{found.optimized} fails, but no rewrite on record is to blame", "bold")
        yield line(f"{found.failure}; was the file changed after it was made?")
    else:
        yield line(f"{found.optimized} keeps to its limit: error {error(found.error)}", "bold")
    limit = "rounding" if found.max_error is None else error(found.max_error)
    samples = found.samples
    inputs = f"{plural(samples.count, 'sample')} from {samples.origin}"
    yield line(
        f"limit {limit}; {plural(found.patches, 'rewrite')} on record, "
        f"{plural(found.evaluations, 'model')} compared on "
        f"{f'inputs, {made_up(samples)}' if samples.synthetic else inputs}"
    )
