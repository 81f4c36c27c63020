"""How far a candidate's outputs are from the original's on one part of the samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import ModelError
from structopt_onnx.validation.metrics import OutputComparison

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.runtime.session import Feeds

# Reference outputs are kept when they are smaller than this, and computed again when not.
_KEPT_BYTES = 256 * 2**20


class Judge:
    """Measures candidates against the original on the same samples.

    Parameters
    ----------
    bench
        Gives the original.
    samples
        The part of the samples to judge by.
    """

    def __init__(self, bench: Bench, samples: Samples) -> None:
        self._bench = bench
        self._samples = samples
        self._kept: list[dict[str, Any]] | None = None
        self.evaluations = 0

    def error(self, candidate: ir.Model) -> float:
        """Return the largest error over the outputs; infinite where it can't be run."""
        self.evaluations += 1
        try:
            session = self._bench.session(candidate)
        except ModelError:
            return math.inf  # the runtime refuses it: as wrong as can be
        comparisons: dict[str, OutputComparison] = {}
        for feeds, expected in self._references():
            try:
                found = session.run(feeds)
            except ModelError:
                return math.inf
            for name, array in expected.items():
                comparisons.setdefault(name, OutputComparison(name)).update(array, found[name])
        return max(comparison.result().error for comparison in comparisons.values())

    def _references(self) -> Iterable[tuple[Feeds, dict[str, Any]]]:
        if self._kept is not None:
            yield from zip(self._samples, self._kept, strict=True)
            return
        reference = self._bench.session(self._bench.reference)
        outputs: list[dict[str, Any]] = []
        size = 0
        for feeds in self._samples:
            expected = reference.run(feeds)
            size += sum(getattr(array, "nbytes", 0) for array in expected.values())
            if size <= _KEPT_BYTES:
                outputs.append(expected)
            yield feeds, expected
        if size <= _KEPT_BYTES:
            self._kept = outputs
