"""The catalogue of passes, in run order."""

from __future__ import annotations

if __name__ != "structopt_onnx.passes":
    raise ImportError("import structopt_onnx.passes: a second copy of the passes must not exist")

from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from structopt_onnx.errors import UsageError
from structopt_onnx.passes.cleanup.fold_batchnorm import FoldBatchnorm
from structopt_onnx.passes.cleanup.fold_constants import FoldConstants
from structopt_onnx.passes.cleanup.fold_dimensions import FoldDimensions
from structopt_onnx.passes.cleanup.fold_weight_layout import FoldWeightLayout
from structopt_onnx.passes.cleanup.normalize import Normalize
from structopt_onnx.passes.cleanup.pad_into_conv import PadIntoConv
from structopt_onnx.passes.cleanup.remove_identities import RemoveIdentities
from structopt_onnx.passes.cleanup.share_subexpressions import ShareSubexpressions
from structopt_onnx.passes.convolution.cancel_transposes import CancelTransposes
from structopt_onnx.passes.convolution.conv_before_pool import ConvBeforePool
from structopt_onnx.passes.convolution.decouple_conv import DecoupleConv
from structopt_onnx.passes.convolution.fold_affine import FoldAffine
from structopt_onnx.passes.convolution.hoist_stride import HoistStride
from structopt_onnx.passes.convolution.lower_resolution import LowerResolution
from structopt_onnx.passes.convolution.merge_linear_convs import MergeLinearConvs
from structopt_onnx.passes.convolution.merge_matmuls import MergeMatmuls
from structopt_onnx.passes.convolution.pool_before_conv import PoolBeforeConv
from structopt_onnx.passes.convolution.shrink_filter import ShrinkFilter
from structopt_onnx.passes.convolution.stride_for_pool import StrideForPool
from structopt_onnx.passes.convolution.trim_filter import TrimFilter
from structopt_onnx.passes.low_rank.factor_conv import FactorConv
from structopt_onnx.passes.low_rank.factor_embedding import FactorEmbedding
from structopt_onnx.passes.low_rank.factor_matmul import FactorMatmul
from structopt_onnx.passes.low_rank.factor_recurrent_input import FactorRecurrentInput
from structopt_onnx.passes.low_rank.narrow_embedding import NarrowEmbedding
from structopt_onnx.passes.recurrence.fuse_recurrent_loop import FuseRecurrentLoop
from structopt_onnx.passes.recurrence.merge_recurrent_input import MergeRecurrentInput
from structopt_onnx.passes.recurrence.reroll_recurrence import RerollRecurrence
from structopt_onnx.passes.recurrence.simplify_recurrent_plumbing import SimplifyRecurrentPlumbing
from structopt_onnx.passes.recurrence.tie_recurrent_weights import TieRecurrentWeights
from structopt_onnx.passes.recurrence.unroll_recurrence import UnrollRecurrence
from structopt_onnx.passes.sharing.share_initializers import ShareInitializers
from structopt_onnx.passes.sparsity.decode_sparse import DecodeSparse
from structopt_onnx.passes.sparsity.encode_sparse import EncodeSparse
from structopt_onnx.passes.sparsity.prune_channels import PruneChannels
from structopt_onnx.passes.sparsity.prune_weights import PruneWeights
from structopt_onnx.passes.sparsity.remove_dead_channels import RemoveDeadChannels
from structopt_onnx.passes.sparsity.round_nonzeros import RoundNonzeros
from structopt_onnx.rewriting.passes import Cleanup, Pass

if TYPE_CHECKING:
    from structopt_onnx.rewriting.passes import Step

OWN: tuple[type[Step], ...] = (
    Normalize,
    DecodeSparse,
    RemoveIdentities,
    ShareInitializers,
    RerollRecurrence,
    FoldDimensions,
    FoldConstants,
    FoldWeightLayout,
    FuseRecurrentLoop,
    SimplifyRecurrentPlumbing,
    MergeRecurrentInput,
    UnrollRecurrence,
    ShareSubexpressions,
    CancelTransposes,
    PadIntoConv,
    FoldBatchnorm,
    FoldAffine,
    TrimFilter,
    RemoveDeadChannels,
    MergeLinearConvs,
    MergeMatmuls,
    HoistStride,
    PoolBeforeConv,
    ConvBeforePool,
    FactorMatmul,
    FactorConv,
    ShrinkFilter,
    DecoupleConv,
    StrideForPool,
    LowerResolution,
    FactorEmbedding,
    FactorRecurrentInput,
    NarrowEmbedding,
    TieRecurrentWeights,
    PruneChannels,
    PruneWeights,
    RoundNonzeros,
    EncodeSparse,
)
GROUP = "structopt_onnx.passes"


def catalogue() -> dict[str, type[Step]]:
    """Return every step by name: this package's in run order, then those of other packages.

    Another package offers a pass through the entry-point group ``structopt_onnx.passes``; the
    entry point loads a subclass of `Pass` or `Cleanup`.

    Raises
    ------
    UsageError
        When an entry point does not load such a class, or takes a name already there.
    """
    found: dict[str, type[Step]] = {step.name: step for step in OWN}
    for entry in entry_points(group=GROUP):
        try:
            step = entry.load()
        except Exception as error:
            raise UsageError(f"third-party pass '{entry.name}' does not load: {error}") from error
        if not (isinstance(step, type) and issubclass(step, (Pass, Cleanup))):
            raise UsageError(f"third-party pass '{entry.name}' is no Pass: {entry.value}")
        if step.name in found:
            raise UsageError(f"third-party pass '{entry.name}' takes the name '{step.name}'")
        found[step.name] = step
    return found
