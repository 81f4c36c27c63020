"""`densify`: sparse and encoded tensors made dense, for tools that can't read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.errors import ModelError, ValidationFailed
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.saving import save
from structopt_onnx.model.sparse import MARK
from structopt_onnx.model.tensors import TensorSite, replace_tensors
from structopt_onnx.passes.sparsity.decode_sparse import DecodeSparse
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.validation.models import validate_models

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source


@dataclass(frozen=True)
class DensifyResult:
    """What became of the sparse tensors.

    Parameters
    ----------
    count
        How many were made dense.
    bytes_before, bytes_after
        The model with its external data.
    verified
        Whether the file written was run and gave the same outputs: the same bits, or to rounding
        where nodes decoded a tensor; False where the model can't be run on made-up inputs.
    """

    count: int
    bytes_before: int
    bytes_after: int
    verified: bool


def densify(source: Source, output: str | Path) -> DensifyResult:
    """Write a model with its sparse and encoded tensors as dense initializers and constants.

    That is every SparseTensorProto, and what BitShift, ScatterElements and the like compute from
    constants alone, as `optimize` writes bitmasks and gaps.

    Parameters
    ----------
    source
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`; never changed.
    output
        Where to write; may be the source itself.

    Returns
    -------
    DensifyResult
        How many tensors it was about, and the sizes.

    Raises
    ------
    ModelError
        When the model can't be read.
    UsageError
        When the output can't be written.
    ValidationFailed
        When the outputs are no longer the same; the output is left as it was.
    """
    opened = open_source(source)
    stored = opened.stored
    before = len(stored) if isinstance(stored, bytes) else model_file_bytes(stored)
    samples = _samples(opened)
    manager = PassManager(TARGETS["cpu"])
    manager.run(opened.model, [DecodeSparse()])
    count = _unmark(opened.model) + len(manager.record.applied)
    # Without the runtime's optimizations, a product with a computed matrix is another kernel's.
    promise = Exactness.ROUNDING if manager.record.applied else Exactness.BITWISE

    def check(path: Path) -> None:
        if samples is None:
            return
        verdict = validate_models(stored, path, samples, exactness=promise, synthetic=True)
        if not verdict.passed:
            raise ValidationFailed(f"{opened.name}: not densified: {verdict.failures[0]}")

    written = save(opened.model, output, check=check)
    return DensifyResult(count, before, model_file_bytes(written), samples is not None)


def _samples(opened: Opened) -> Samples | None:
    try:
        return samples_for(opened, None, seed=0, threads=1, libraries=())
    except ModelError:  # custom operators, a runtime that can't read sparse tensors, odd inputs
        return None


def _unmark(model: ir.Model) -> int:
    """Take the marks that would make `save` write a tensor sparse; return how many there were."""
    count = 0

    def unmark(tensor: ir.TensorProtocol, site: TensorSite) -> ir.TensorProtocol:
        nonlocal count
        marks = [tensor.meta.pop(MARK, None)]
        if site.value is not None:
            marks.append(site.value.meta.pop(MARK, None))
        count += any(mark is not None for mark in marks)
        return tensor

    replace_tensors(model, unmark)
    return count
