"""Single observations of an activation of one model and one of another on the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.calibration.paired import side_by_side

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import onnx_ir as ir

    from structopt_onnx.calibration.paired import Pair
    from structopt_onnx.calibration.samples import Samples


def paired_rows(
    first: ir.Model,
    second: ir.Model,
    samples: Samples,
    most: Mapping[Pair, int],
    *,
    seed: int = 0,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> dict[Pair, npt.NDArray[Any]]:
    """Run both models on every sample and keep some of what the pairs show, side by side.

    Of every sample as many observations are kept as of any other, drawn without replacement, so
    that memory is bounded whatever the samples hold.

    Parameters
    ----------
    first, second, samples, threads, libraries
        As of `paired_moments`.
    most
        Pairs to look at, and how many observations of each are kept at most.
    seed
        Of what is drawn; the same for every pair.

    Returns
    -------
    dict
        Float32 [N, features of `read`, features of `made`] per pair that can be used.
    """
    held: dict[Pair, list[npt.NDArray[Any]]] = {pair: [] for pair in most}
    draw = {pair: np.random.default_rng(seed) for pair in most}
    for pair, rows in side_by_side(
        first, second, samples, list(most), threads=threads, libraries=libraries
    ):
        if rows is None:
            held.pop(pair)
            continue
        count = max(1, most[pair] // len(samples))
        if len(rows) > count:
            rows = rows[np.sort(draw[pair].choice(len(rows), count, replace=False))]  # noqa: PLW2901
        held[pair].append(rows.astype(np.float32))
    return {pair: np.concatenate(parts) for pair, parts in held.items() if parts}
