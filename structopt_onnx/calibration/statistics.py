"""Activation moments of chosen tensors, streamed over sample inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from structopt_onnx.errors import DataError
from structopt_onnx.linalg.moments import Moments, MomentsAccumulator
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.statistic import Statistic


def gather(
    model: ir.Model,
    samples: Samples,
    statistics: Collection[Statistic],
    *,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> dict[Statistic, Moments]:
    """Run a model over samples and return the moments of chosen activations.

    Memory is that of all the moments, twice for the largest, and one sample's activations,
    whatever the number of samples. Sums are in float64 for every dtype.

    Parameters
    ----------
    model
        The model; never changed.
    samples
        The inputs, run one by one.
    statistics
        What to gather. Left out is a statistic that nothing was observed of (an axis of size 0
        in every sample), and one that met infinity or NaN, which have no moments.
    threads
        Threads of the runtime.
    libraries
        Custom operator libraries.

    Raises
    ------
    DataError
        When a tensor is not in the main graph, holds no numbers, or has no such axis; names the
        tensor and the sample.
    """
    wanted = list(dict.fromkeys(statistics))
    if not wanted or not len(samples):
        return {}
    observer = _Observer(model, samples, wanted, threads=threads, libraries=libraries)
    for number in range(len(samples)):
        observer.observe(number)
    accumulators = observer.accumulators
    del observer  # its session
    return {s: accumulators.pop(s).moments() for s in wanted if s in accumulators}


def feature_sizes(
    model: ir.Model,
    samples: Samples,
    statistics: Collection[Statistic],
    *,
    libraries: Sequence[Path] = (),
) -> dict[Statistic, int]:
    """Return the number of features of each statistic as the first sample shows them.

    Only a run is sure to know; what it does not show is left out. Parameters and errors are those
    of `gather`.
    """
    wanted = list(dict.fromkeys(statistics))
    if not wanted or not len(samples):
        return {}
    return _Observer(model, samples, wanted, threads=1, libraries=libraries).sizes()


class _Observer:
    """One opened model whose activations go into accumulators."""

    def __init__(
        self,
        model: ir.Model,
        samples: Samples,
        statistics: Sequence[Statistic],
        *,
        threads: int,
        libraries: Sequence[Path],
    ) -> None:
        values = _main_values(model)
        for name in (name for statistic in statistics for name in statistic.reads()):
            if name not in values:
                raise _not_in_main_graph(name)
        fed = {value.name for value in model.graph.inputs}
        names = dict.fromkeys(n for s in statistics for n in s.reads() if n not in fed)
        # Where only inputs are observed nothing needs to run.
        self._session = (
            Session(model, outputs=tuple(names), threads=threads, libraries=libraries)
            if names
            else None
        )
        self._samples = samples
        self._statistics = statistics
        self.accumulators: dict[Statistic, MomentsAccumulator] = {}
        self._dropped: set[Statistic] = set()

    def sizes(self) -> dict[Statistic, int]:
        """Return the size of each feature axis, as the first sample shows it."""
        arrays = self._run(0)
        return {
            s: max(s.rows(a, arrays).shape[-1] for a in held)
            for s in self._statistics
            if (held := [a for n in s.values if _has_axis(a := arrays.get(n), s.axis)])
        }

    def observe(self, number: int) -> None:
        """Run one sample and take what it shows."""
        arrays = self._run(number)
        sound: dict[str, bool] = {}
        for statistic in self._statistics:
            for name in statistic.values:
                if name not in arrays or statistic in self._dropped:
                    # An input that has a default and that the data leaves out: a constant.
                    continue
                where = f"{self._samples.origin}: tensor '{name}' of sample {number}"
                if name not in sound:
                    sound[name] = _is_finite(arrays[name], where)
                if sound[name]:
                    self._update(statistic, arrays, name, where)
                else:
                    self._dropped.add(statistic)
                    self.accumulators.pop(statistic, None)

    def _run(self, number: int) -> dict[str, Any]:
        feeds = self._samples[number]
        return feeds if self._session is None else feeds | self._session.run(feeds)

    def _update(self, statistic: Statistic, arrays: dict[str, Any], name: str, where: str) -> None:
        array = arrays[name]
        if not _has_axis(array, statistic.axis):
            raise DataError(f"{where} has rank {array.ndim} and no axis {statistic.axis}")
        if array.size == 0:
            return
        rows = statistic.rows(array, arrays)
        size = rows.shape[-1]
        if statistic not in self.accumulators:
            self.accumulators[statistic] = MomentsAccumulator(size)
        accumulator = self.accumulators[statistic]
        if accumulator.dimension != size:
            raise DataError(f"{where} has {size} features, {accumulator.dimension} elsewhere")
        accumulator.update(rows)


def _is_finite(array: object, where: str) -> bool:
    if not isinstance(array, np.ndarray) or array.dtype.kind in "OSUc":
        raise DataError(f"{where} holds no real numbers")
    return array.dtype.kind in "iub" or bool(np.isfinite(array).all())


def _has_axis(array: object, axis: int) -> TypeGuard[npt.NDArray[Any]]:
    return isinstance(array, np.ndarray) and -array.ndim <= axis < array.ndim


def _main_values(model: ir.Model) -> dict[str, ir.Value]:
    graph = model.graph
    inside = (output for node in graph for output in node.outputs)
    found = (*graph.inputs, *graph.initializers.values(), *inside)
    return {value.name: value for value in found if value.name}


def _not_in_main_graph(name: str) -> DataError:
    return DataError(
        f"tensor '{name}' is not in the model's main graph; activations inside subgraphs and "
        "functions can't be gathered"
    )
