"""What a command is given: a model in a form that sessions can open, and inputs to run it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from structopt_onnx.calibration.padding import padding_of
from structopt_onnx.calibration.samples import Samples, load_samples
from structopt_onnx.calibration.synthetic import synthetic_samples
from structopt_onnx.model.encoding import fits_one_file, serialized_size, to_proto
from structopt_onnx.model.loading import SOURCE, Source, load
from structopt_onnx.report.record import SampleReport
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.metrics import OutputComparison

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from structopt_onnx.runtime.session import Feeds

# Relative L2 difference of an output that other shapes of the same sums make.
_SAME = 1e-4


@dataclass(frozen=True)
class Opened:
    """A model that was read.

    Parameters
    ----------
    name
        Display name.
    model
        The model in memory; a copy of the caller's.
    stored
        What sessions open: its file, or its bytes.
    """

    name: str
    model: ir.Model
    stored: Path | bytes


def open_source(source: Source) -> Opened:
    """Read a model; errors as in `structopt_onnx.model.loading.load`."""
    model = load(source)
    stored: Path | bytes
    if isinstance(source, str | Path):
        stored = Path(source)
    elif isinstance(source, bytes):
        stored = source
    else:
        fits = fits_one_file(serialized_size(model))
        proto = source if isinstance(source, onnx.ModelProto) and fits else to_proto(model)
        stored = proto.SerializeToString()
    return Opened(str(model.meta.get(SOURCE, "model")), model, stored)


def samples_for(
    opened: Opened,
    data: Any | None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    *,
    seed: int,
    threads: int,
    libraries: Sequence[Path],
    count: int = 8,
    unpad: bool = False,
) -> Samples:
    """Read the user's inputs for a model, or make `count` up.

    With `unpad` the parts to fit on and to probe with come without what the model does not look at.

    Raises
    ------
    DataError
        When the data does not fit the model, or none can be made up that run.
    ModelError
        When the model can't be opened.
    """
    session = Session(opened.stored, threads=threads, libraries=libraries)
    if data is None:
        return synthetic_samples(
            opened.model, session.inputs, count=count, seed=seed, run=session.run
        )
    samples = load_samples(data, session.inputs, optional=session.overridable)
    if not unpad:
        return samples

    def same(whole: Feeds, cut: Feeds) -> bool:
        found = session.run(cut)
        for name, value in session.run(whole).items():
            comparison = OutputComparison(name)
            comparison.update(value, found[name])
            if comparison.result().error > _SAME:
                return False
        return True

    return samples.padded_by(padding_of(samples, session.inputs, same))


def sample_report(samples: Samples) -> SampleReport:
    """Return what a report says of samples that are not split."""
    first = samples[0] if len(samples) else {}
    shapes = tuple(
        f"{name} {array.dtype.name}[{','.join(map(str, array.shape))}]"
        for name, array in first.items()
    )
    return SampleReport(samples.origin, samples.synthetic, len(samples), shapes=shapes)
