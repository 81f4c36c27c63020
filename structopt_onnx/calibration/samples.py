"""Sample inputs of a model, cut lazily out of the user's arrays and split for honest errors."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, overload

import numpy as np

from structopt_onnx.calibration.layout import Array, Feeds, Part, fit
from structopt_onnx.calibration.padding import Padding
from structopt_onnx.calibration.reading import SOURCE, Batch, origin_of, read
from structopt_onnx.calibration.splitting import blocks, default_fractions, share_out
from structopt_onnx.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from structopt_onnx.runtime.session import TensorInfo

_PARTS = 3


class Samples(Sequence[Feeds]):
    """Inputs of many runs; each feed is cut out when asked for.

    Parameters
    ----------
    parts
        The data.
    origin
        What the report calls the data: "calibration.npz", "synthetic".
    synthetic
        Whether the inputs were made up.
    sources
        Where each sample is from (speaker, recording, file), one entry per sample; None when the
        data does not say.
    blocked
        Set on the results of `split` when neighbouring samples of one source may be on both sides
        of a cut, so that errors measured on one part may be understated.
    indices
        Positions in the concatenated parts; all of them when None.
    padding
        What the model does not look at.
    cut
        Whether feeds come without it.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        origin: str,
        synthetic: bool = False,
        sources: Array | None = None,
        blocked: bool = False,
        indices: Array | None = None,
        padding: Padding | None = None,
        cut: bool = False,
    ) -> None:
        self._parts = tuple(parts)
        self._ends = list(accumulate(part.count for part in self._parts))
        total = self._ends[-1] if self._ends else 0
        self._indices = np.arange(total) if indices is None else indices
        self._all_sources = sources
        self.origin = origin
        self.synthetic = synthetic
        self.blocked = blocked
        self._padding = padding or Padding()
        self._cut = cut

    @property
    def sources(self) -> Array | None:
        """Source of each sample, or None when the data does not say."""
        return None if self._all_sources is None else self._all_sources[self._indices]

    @property
    def indices(self) -> Array:
        """Position of each sample in the data as given: where to look its label up."""
        return self._indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Feeds: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Feeds | Samples:
        if isinstance(index, slice):
            return self.subset(range(*index.indices(len(self))))
        part, row = self._locate(int(self._indices[index]))
        return self._shown(part.feed(row))

    def subset(self, indices: Sequence[int] | Array) -> Samples:
        """Return some of the samples, in the order asked for; the data is shared."""
        return self._with(indices=self._indices[np.asarray(indices, dtype=np.intp)])

    def padded_by(self, padding: Padding) -> Samples:
        """Return the samples, for a model that does not look at some of their positions."""
        return self._with(padding=padding)

    def unpadded(self) -> Samples:
        """Return the samples without what the model does not look at."""
        return self._with(cut=True)

    def as_given(self) -> Samples:
        """Return the samples with all that the data holds."""
        return self._with(cut=False)

    def batches(self, size: int) -> Iterator[tuple[Feeds, int]]:
        """Iterate over all samples in order, up to `size` per feed; yield feeds and their numbers.

        Samples are joined along axis 0 only where that is one run of the model: every input was
        given as an array batched by single rows, of the same sizes, and the model leaves all the
        first axes free under one common name. Other samples come one by one, whatever the size.
        Padding that is cut off is what all of a feed have.
        """
        held: list[Feeds] = []
        joins = False
        for index in self._indices:
            part, row = self._locate(int(index))
            feeds = part.feed(row)
            fits = joins and part.joinable and len(held) < size and _alike(feeds, held[0])
            if held and not fits:
                yield self._shown(_joined(held)), len(held)
                held = []
            held.append(feeds)
            joins = part.joinable
        if held:
            yield self._shown(_joined(held)), len(held)

    def split(
        self, fractions: tuple[float, float, float] | None = None
    ) -> tuple[Samples, Samples, Samples]:
        """Split into parts to fit on, to probe with, and to judge by; none is empty.

        Without fractions the last two have a fifth each of a thousand samples and a twentieth of
        what is beyond: some hundreds tell an error, and fits gain by all they get.

        Whole sources go to one part where the data names at least three. Otherwise the parts are
        contiguous blocks, and `blocked` is set on them: one block each, or one of every stretch of
        the data where there is enough of it. What comes late in a file is often of another kind
        than what comes first, and errors on a last block alone say nothing of the others. Padding
        is cut off the first two; the last is judged as it was given.

        Raises
        ------
        DataError
            With fewer than three samples.
        """
        if len(self) < _PARTS:
            raise DataError(
                f"{self.origin} holds {len(self)} samples; calibration needs at least {_PARTS} "
                "(to fit on, to probe with, to judge by), better 50 or more"
            )
        fractions = fractions or default_fractions(len(self))
        sources = self.sources
        names = [] if sources is None else list(dict.fromkeys(sources.tolist()))
        if sources is None or len(names) < _PARTS:
            return self._parted(blocks(len(self), fractions), blocked=True)
        owner = share_out([int((sources == name).sum()) for name in names], fractions)
        part_of = dict(zip(names, owner, strict=True))
        parts = np.array([part_of[source] for source in sources.tolist()])
        return self._parted([np.flatnonzero(parts == k) for k in range(_PARTS)], blocked=False)

    def _parted(self, rows: Sequence[Array], *, blocked: bool) -> tuple[Samples, Samples, Samples]:
        fit_on, probe, final = (
            self._with(indices=self._indices[chosen], blocked=blocked) for chosen in rows
        )
        return fit_on.unpadded(), probe.unpadded(), final

    def _with(
        self,
        *,
        indices: Array | None = None,
        blocked: bool | None = None,
        padding: Padding | None = None,
        cut: bool | None = None,
    ) -> Samples:
        return Samples(
            self._parts,
            origin=self.origin,
            synthetic=self.synthetic,
            sources=self._all_sources,
            blocked=self.blocked if blocked is None else blocked,
            indices=self._indices if indices is None else indices,
            padding=self._padding if padding is None else padding,
            cut=self._cut if cut is None else cut,
        )

    def _shown(self, feeds: Feeds) -> Feeds:
        return self._padding.cut(feeds) if self._cut else feeds

    def _locate(self, position: int) -> tuple[Part, int]:
        k = bisect.bisect_right(self._ends, position)
        return self._parts[k], position - (self._ends[k - 1] if k else 0)


def load_samples(
    data: str | Path | Mapping[str, Array] | Sequence[Feeds],
    inputs: Sequence[TensorInfo],
    *,
    optional: Sequence[TensorInfo] = (),
) -> Samples:
    """Read the user's sample inputs and check them against the model.

    Parameters
    ----------
    data
        An npz file with one array per input (see `structopt_onnx.calibration.layout.fit` for how
        samples lie in it) and, if wanted, `__source__` naming each sample's source; a folder of
        npz files, one per source, or of ONNX `test_data_set_*` folders; `module:factory`, a
        callable that returns such arrays or an iterable of feeds; or these objects themselves.
    inputs
        The model's inputs in order.
    optional
        Inputs that may be left out (initializers that can be overridden).

    Raises
    ------
    DataError
        When the data can't be read or does not fit the model.
    UsageError
        When a factory can't be imported or fails.
    """
    if isinstance(data, Samples):
        return data
    origin = origin_of(data)
    batches = read(data, [info.name for info in inputs])
    if not batches:
        raise DataError(f"{origin} holds no samples")
    parts = [fit(b.arrays, inputs, optional, origin=b.label, whole=b.whole) for b in batches]
    return Samples(parts, origin=origin, sources=_sources(batches, parts))


def _sources(batches: Sequence[Batch], parts: Sequence[Part]) -> Array | None:
    if any(batch.sources is None for batch in batches):
        return None
    names = []
    for batch, part in zip(batches, parts, strict=True):
        named = batch.sources
        if isinstance(named, np.ndarray):
            if named.shape != (part.count,):
                raise DataError(
                    f"{batch.label}: {SOURCE} has shape {list(named.shape)}; expected one entry "
                    f"for each of the {part.count} samples"
                )
            names.append(named.astype(str))
        else:
            names.append(np.full(part.count, named))
    return np.concatenate(names)


def _alike(feeds: Feeds, other: Feeds) -> bool:
    """Whether a row can be joined to another."""
    return feeds.keys() == other.keys() and all(
        array.shape[1:] == other[name].shape[1:] for name, array in feeds.items()
    )


def _joined(held: Sequence[Feeds]) -> Feeds:
    if len(held) == 1:
        return held[0]
    return {name: np.concatenate([feeds[name] for feeds in held]) for name in held[0]}
