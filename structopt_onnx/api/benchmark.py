"""`benchmark`: how fast a model is, and whether another one is faster."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.runtime.benchmark import BenchmarkSettings
from structopt_onnx.runtime.benchmark import benchmark as measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.loading import Source
    from structopt_onnx.runtime.comparison import Comparison


def benchmark(
    a: Source,
    b: Source | None = None,
    *,
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    seconds: float = 20.0,
    replicates: int = 8,
    threads: int = 1,
    seed: int = 0,
    libraries: Sequence[Path] = (),
) -> Comparison:
    """Measure model B against model A in onnxruntime, or model A alone.

    Parameters
    ----------
    a, b
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`.
    data
        Inputs: an npz file, a folder, ``module:factory``, arrays by input name, or feeds; the
        first 8 are used. None makes some up.
    seconds
        Time for all of it.
    replicates
        How often all sessions are created anew, at least 8.
    threads
        Threads of the deployment, for the wall-clock numbers; the verdict uses one.
    seed
        Of made-up inputs and of the order of measurements.
    libraries
        Shared libraries with custom operators.

    Returns
    -------
    Comparison
        With verdict "not measured" if the models are too slow for the time allowed.

    Raises
    ------
    ModelError
        When a model can't be read or run.
    DataError
        When the data does not fit model A.
    UsageError
        For a wrong setting.
    """
    settings = BenchmarkSettings(
        seconds=seconds,
        replicates=replicates,
        threads=threads,
        seed=seed,
        libraries=tuple(libraries),
    )
    first = open_source(a)
    second = None if b is None else open_source(b)
    samples = samples_for(first, data, seed=seed, threads=threads, libraries=libraries)
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
        path = _file(first, Path(folder) / "a.onnx")
        other = None if second is None else _file(second, Path(folder) / "b.onnx")
        return measure(path, other, samples, settings)


def _file(opened: Opened, place: Path) -> Path:
    if isinstance(opened.stored, Path):
        return opened.stored
    place.write_bytes(opened.stored)
    return place
