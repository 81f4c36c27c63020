"""What a model was run on, in words: where the inputs are from, or what was made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structopt_onnx.report.figures import count, plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.report.record import SampleReport

_MOST_INPUTS = 4


def sizes(shapes: Sequence[str]) -> str:
    """List types and shapes of the inputs of one run; empty where none is known."""
    listed = ", ".join(shapes[:_MOST_INPUTS])
    more = len(shapes) - _MOST_INPUTS
    return listed + (f" and {plural(more, 'more input')}" if more > 0 else "")


def inputs_line(samples: SampleReport, option: str) -> str:
    """Say how many inputs there were and where they are from.

    Parameters
    ----------
    samples
        The inputs.
    option
        The option that takes real ones, where these were made up.
    """
    if samples.synthetic:
        return f"inputs: {made_up(samples)}{_parts(samples)}; give {option} for real ones"
    return f"inputs: {count(samples.count)} from {samples.origin}{_parts(samples)}"


def made_up(samples: SampleReport) -> str:
    """Say how many inputs were made up, and how large they are."""
    listed = sizes(samples.shapes)
    return f"{count(samples.count)} made up{f': {listed}' if listed else ''}"


def _parts(samples: SampleReport) -> str:
    if not samples.final:
        return ""
    return f" ({samples.fit} to fit, {samples.probe} to probe, {samples.final} final)"
