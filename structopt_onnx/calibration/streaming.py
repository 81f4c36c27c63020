"""Activation moments within a bound of memory: gathered in groups, when they are asked for."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from structopt_onnx.calibration.statistics import feature_sizes, gather
from structopt_onnx.linalg.moments import MomentsAccumulator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.linalg.moments import Moments
    from structopt_onnx.model.statistic import Statistic

T = TypeVar("T")

# Work at several sites is under way at once, so that around the border of two groups either is
# asked for.
_HELD_GROUPS = 2


class StreamedMoments(Mapping["Statistic", "Moments"]):
    """Moments by statistic, never more of them at once than a bound of memory allows.

    Where all fit into the bound, one pass over the samples gathers them. Where they do not, one
    pass gathers a group of neighbours, and the groups asked for last are held: who asks in the
    order given causes a pass per group. What `gather` leaves out is a key without a value: `get`
    returns None. Threads may ask at the same time.

    Parameters
    ----------
    model
        The model; not to be changed meanwhile.
    samples
        The inputs.
    statistics
        What may be asked for, in the order in which it will be.
    max_bytes
        Bound on the moments held; a single larger one is gathered and held alone.
    threads, libraries
        Of the sessions.

    Raises
    ------
    DataError
        As of `gather`, also when a statistic is asked for.
    """

    def __init__(
        self,
        model: ir.Model,
        samples: Samples,
        statistics: Collection[Statistic],
        *,
        max_bytes: int,
        threads: int = 1,
        libraries: Sequence[Path] = (),
    ) -> None:
        self._model = model
        self._samples = samples
        self._threads = threads
        self._libraries = libraries
        wanted = list(dict.fromkeys(statistics))
        features = feature_sizes(model, samples, wanted, libraries=libraries)
        sizes = {s: MomentsAccumulator.nbytes(features.get(s, 0)) for s in wanted}
        whole = sum(sizes.values()) <= max_bytes
        most = max_bytes if whole else max_bytes // _HELD_GROUPS
        self._groups = list(grouped(sizes.items(), most))
        self._numbers = {s: n for n, group in enumerate(self._groups) for s in group}
        self._held: OrderedDict[int, dict[Statistic, Moments]] = OrderedDict()
        self._lock = Lock()

    def __getitem__(self, statistic: Statistic) -> Moments:
        """Return the moments of one statistic; gathers its group unless that is held."""
        number = self._numbers[statistic]
        with self._lock:
            if number not in self._held:
                while len(self._held) >= _HELD_GROUPS:
                    self._held.popitem(last=False)
                self._held[number] = gather(
                    self._model,
                    self._samples,
                    self._groups[number],
                    threads=self._threads,
                    libraries=self._libraries,
                )
            self._held.move_to_end(number)
            return self._held[number][statistic]

    def forget(self) -> None:
        """Let go of all moments; whoever asks again causes another pass."""
        with self._lock:
            self._held.clear()

    def __iter__(self) -> Iterator[Statistic]:
        """Iterate over what may be asked for, in groups."""
        return iter(self._numbers)

    def __len__(self) -> int:
        """Count what may be asked for."""
        return len(self._numbers)


def grouped(sizes: Iterable[tuple[T, int]], most: int) -> Iterator[list[T]]:
    """Fill groups in order, so that neighbours share one.

    Parameters
    ----------
    sizes
        Things and their sizes in bytes.
    most
        Largest sum of a group; a single larger thing gets a group of its own.
    """
    group: list[T] = []
    held = 0
    for thing, size in sizes:
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(thing)
        held += size
    if group:
        yield group
