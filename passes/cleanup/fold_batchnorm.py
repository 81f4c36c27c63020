"""fold-batchnorm: normalization by stored statistics goes into the product before it.

What it does
    BatchNormalization behind Conv, ConvTranspose or Gemm is folded into weight and bias, with
    onnxscript's rules.

Why
    Its four vectors are an affine map per channel, which the product can do by itself; folded,
    it no longer stands between a convolution and its pool.

Leaves alone
    What the library gets wrong: normalization in training mode or per position, with mixed
    types, and parameters that are graph outputs. What it can't fold: weights that are shared,
    computed or overridable.

Exactness
    ROUNDING: the products are scaled before they are summed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as onnx_ir_passes
from onnxscript.rewriter import MatchResult, RewriteRuleSet
from onnxscript.rewriter.rules.common._fuse_batchnorm import (
    FuseBatchNormIntoConv,
    FuseBatchNormIntoConvTranspose,
    FuseBatchNormIntoGemm,
)

from structopt_onnx.linalg.narrowing import narrowed
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.rewriting.passes import Cleanup

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class FoldBatchnorm(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "fold-batchnorm"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        if any(node.op_type == "BatchNormalization" for node in model.graph.all_nodes()):
            _RULES.apply_to_model(model)
            onnx_ir_passes.RemoveUnusedNodesPass()(model)


def _is_safe(inbound: ir.Value, normalized: ir.Value) -> bool:
    product, normalization = inbound.producer(), normalized.producer()
    if product is None or normalization is None or None in product.inputs:
        return False
    training = normalization.attributes.get("training_mode")
    spatial = normalization.attributes.get("spatial")
    if (training is not None and training.as_int()) or (
        spatial is not None and not spatial.as_int()
    ):
        return False
    parameters = [v for v in (*product.inputs[1:], *normalization.inputs[1:]) if v is not None]
    types = {value.dtype for value in parameters}
    if len(types) != 1 or any(value.is_graph_output() for value in parameters):
        return False
    return _holds(product.inputs[1:], normalization)


def _holds(stored: Sequence[ir.Value | None], normalization: ir.Node) -> bool:
    """Whether the folded weight and bias can be held by their type.

    By bounds: no element is larger than the largest of the weight times the largest scale.
    """
    tensors = [
        None if value is None else ir.convenience.get_const_tensor(value)
        for value in (*stored, *normalization.inputs[1:])
    ]
    known = [None if t is None else t.numpy().astype(np.float64) for t in tensors]
    (weight, *biases), (scale, offset, mean, variance) = known[: len(stored)], known[len(stored) :]
    if weight is None or scale is None or offset is None or mean is None or variance is None:
        return True  # not folded: the library asks for constants
    epsilon = normalization.attributes.get("epsilon")
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + (1e-5 if epsilon is None else epsilon.as_float()))
        bias = -mean * factor + offset
        for given in biases:
            bias = bias + np.abs(factor) * (0.0 if given is None else np.abs(given).max(initial=0))
        largest = np.abs(weight).max(initial=0.0) * np.abs(factor)
    kind = normalization.inputs[1]
    dtype = None if kind is None or kind.dtype is None else kind.dtype.numpy()
    return dtype is not None and all(narrowed(a, dtype) is not None for a in (largest, bias))


class _Safe:
    """A rule of the library, held back from what it gets wrong."""

    def check(self, context: Any, x: Any, inbound_out: Any, batchnorm_out: Any) -> Any:  # noqa: ANN401 - the library's signature
        if not _is_safe(inbound_out, batchnorm_out):
            return MatchResult().fail("the rule is wrong here")
        return super().check(context, x, inbound_out, batchnorm_out)  # type: ignore[misc] # the library's class comes next


class _IntoConv(_Safe, FuseBatchNormIntoConv):  # type: ignore[misc] # the library has no types
    pass


class _IntoConvTranspose(_Safe, FuseBatchNormIntoConvTranspose):  # type: ignore[misc] # the same
    pass


class _IntoGemm(_Safe, FuseBatchNormIntoGemm):  # type: ignore[misc] # the same
    pass


_RULES = RewriteRuleSet([kind.rule() for kind in (_IntoConv, _IntoConvTranspose, _IntoGemm)])
