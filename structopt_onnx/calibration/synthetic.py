"""Made-up inputs that a model accepts, for when the user gives none."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.calibration.domains import Domain, input_domain
from structopt_onnx.calibration.drawing import draw
from structopt_onnx.calibration.layout import fit
from structopt_onnx.calibration.samples import Samples
from structopt_onnx.errors import DataError
from structopt_onnx.model.facts import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.calibration.layout import Feeds
    from structopt_onnx.runtime.session import TensorInfo

Sizes = dict[str, int]

_BATCHES = (1, 2, 3, 4, 8)
# Most models take 32; then what strides, windows and common frame and image sizes ask for.
_LENGTHS = (32, 64, 16, 48, 8, 128, 224, 256, 512, 576, 4, 2, 1, 160, 96, 320, 640, 1024, 3, 5, 10)
_SHORT_LENGTHS = (32, 1, 64, 16, 8, 48, 128, 4, 2, 512)
_SEQUENCE_NAME = re.compile(r"seq|len|time|frame|step|token|width|height", re.IGNORECASE)
_MAX_PRODUCT = 300
_SIZES_WANTED = 3
_TURNS = 4


def synthetic_samples(
    model: ir.Model,
    inputs: Sequence[TensorInfo],
    *,
    count: int = 8,
    seed: int = 0,
    run: Callable[[Feeds], object] | None = None,
) -> Samples:
    """Make up inputs: legal values, and several sizes per dynamic dimension.

    One name of a symbolic dimension is one size within a sample. Integers stay inside the tables
    they index, and take the constants they are compared with. The same arguments give the same
    bytes.

    Parameters
    ----------
    model
        The model, read to find out what its inputs are used for.
    inputs
        The inputs to feed.
    count
        Number of samples.
    seed
        Seeds every draw.
    run
        Runs the model once. Sizes at which it raises are replaced by others, and every sample
        returned has run. Without it the sizes are guesses.

    Raises
    ------
    DataError
        When an input is no tensor, or nothing that was tried runs.
    """
    for info in inputs:
        if info.dtype is None and info.type != "tensor(string)":
            raise DataError(
                f"input '{info.name}' is a {info.type}; only tensors can be made up or fed"
            )
    maker = _Maker.of(model, inputs, seed, run)
    sizes = maker.sizes()
    feeds = [maker.sample(k, sizes) for k in range(count)]
    parts = [
        fit(feed, inputs, origin=f"synthetic sample {k}", whole=True)
        for k, feed in enumerate(feeds)
    ]
    return Samples(
        parts, origin="synthetic", synthetic=True, sources=np.arange(len(parts)).astype(str)
    )


@dataclass
class _Maker:
    inputs: Sequence[TensorInfo]
    axes: tuple[tuple[int | str, ...], ...]
    domains: Sequence[Domain]
    seed: int
    run: Callable[[Feeds], object] | None
    failure: str = ""
    tried: int = 0
    batch_like: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def of(
        cls,
        model: ir.Model,
        inputs: Sequence[TensorInfo],
        seed: int,
        run: Callable[[Feeds], object] | None,
    ) -> _Maker:
        facts = Facts(model)
        values = {value.name: value for value in model.graph.inputs}
        domains = [
            input_domain(facts, values[i.name]) if i.name in values else Domain() for i in inputs
        ]
        axes = tuple(
            tuple(_symbol(dim, axis) for axis, dim in enumerate(info.shape)) for info in inputs
        )
        first = {sizes[0] for sizes in axes if sizes}
        batch_like = frozenset(
            name for name in first if isinstance(name, str) and not _SEQUENCE_NAME.search(name)
        )
        return cls(inputs, axes, domains, seed, run, batch_like=batch_like)

    @property
    def names(self) -> list[str]:
        """Every symbolic dimension, in order of appearance."""
        return list(dict.fromkeys(n for named in self.axes for n in named if isinstance(n, str)))

    def feed(self, sizes: Sizes, number: int, turn: int) -> Feeds:
        """Draw one sample at the given sizes."""
        feeds: Feeds = {}
        for info, axes, domain in zip(self.inputs, self.axes, self.domains, strict=True):
            shape = tuple(axis if isinstance(axis, int) else sizes[axis] for axis in axes)
            feeds[info.name] = draw(info, shape, domain, sizes, seed=(self.seed, number), turn=turn)
        return feeds

    def attempt(self, sizes: Sizes, number: int) -> Feeds | None:
        """Return a feed that runs at these sizes, or None."""
        for turn in range(number, number + _TURNS):
            feeds = self.feed(sizes, number, turn)
            if self.run is None:
                return feeds
            self.tried += 1
            try:
                self.run(feeds)
            except Exception as error:  # noqa: BLE001 - whatever a runtime raises, these do not run
                self.failure = str(error).partition("\n")[0]
            else:
                return feeds
            decisive = (d.compared and not a for d, a in zip(self.domains, self.axes, strict=True))
            if not any(decisive):
                return None
        return None

    def sizes(self) -> dict[str, list[int]]:
        """Find sizes of each dimension that run, the first ones together, the others alone."""
        base = self.base()
        found: dict[str, list[int]] = {}
        for name in self.names:
            at = base[name]
            others = (
                _BATCHES
                if name in self.batch_like
                else (at + 1, 2 * at, at + at // 2, 3 * at, at // 2)
            )
            working = [at]
            for size in dict.fromkeys(others):
                if len(working) == _SIZES_WANTED:
                    break
                if size not in {0, at} and self.attempt({**base, name: size}, 0) is not None:
                    working.append(size)
            found[name] = working
        return found

    def base(self) -> Sizes:
        """Return the first sizes at which the model runs."""
        for sizes in self.proposals():
            if self.attempt(sizes, 0) is not None:
                return sizes
        raise self.stuck()

    def proposals(self) -> Iterator[Sizes]:
        """Yield sizes to try: all lengths alike first, then every dimension for itself."""
        lengths = [name for name in self.names if name not in self.batch_like]
        batches = [name for name in self.names if name in self.batch_like]
        if not self.names:
            yield {}
            return
        for length in _LENGTHS if lengths else _LENGTHS[:1]:
            for batch in _BATCHES[:2] if batches else _BATCHES[:1]:
                yield dict.fromkeys(lengths, length) | dict.fromkeys(batches, batch)
        for free in (lengths, self.names):
            # The second round: what was taken for a batch may be anything, too.
            tried = itertools.product(_SHORT_LENGTHS, repeat=len(free))
            for sizes in itertools.islice(tried, _MAX_PRODUCT):
                yield dict.fromkeys(batches, 1) | dict(zip(reversed(free), sizes, strict=True))

    def sample(self, number: int, sizes: dict[str, list[int]]) -> Feeds:
        """Return sample `number`: its own sizes where they run together, else safer ones."""
        names = list(sizes)
        own = {
            name: working[(number + position * (number // len(working))) % len(working)]
            for position, (name, working) in enumerate(sizes.items())
        }
        base = {name: working[0] for name, working in sizes.items()}
        alone = names[number % len(names)] if names else None
        safer = {**base, alone: own[alone]} if alone is not None else base
        for candidate in (own, safer, base):
            feeds = self.attempt(candidate, number)
            if feeds is not None:
                return feeds
        # The sizes ran before, so some of this draw's values are illegal: sample 0's are not.
        feeds = self.attempt(base, 0)
        if feeds is None:
            raise self.stuck()
        return feeds

    def stuck(self) -> DataError:
        """Return the error that says what to do."""
        return DataError(
            f"no made-up input runs ({self.tried} tried; last: {self.failure}); pass real inputs "
            "with --calibration"
        )


def _symbol(dim: int | str | None, axis: int) -> int | str:
    """Return a fixed size or a name; unnamed axes at one position of several inputs are one."""
    if isinstance(dim, int) and dim >= 0:
        return dim
    return dim if isinstance(dim, str) and dim else f"?{axis}"
