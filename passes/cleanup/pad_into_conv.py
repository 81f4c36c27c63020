"""pad-into-conv: zeros put around an activation become the padding of the convolution.

What it does
    A Pad with constant zeros on spatial axes, read by a Conv, becomes part of its pads, with
    onnxscript's rule.

Why
    The padded copy costs memory and time; convolutions pad for nothing.

Leaves alone
    Pads of other modes and values, or negative; convolutions with auto_pad; ConvInteger, whose
    padding stands for the zero point and not for 0, which the library's rule forgets.

Exactness
    BITWISE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir.passes.common as onnx_ir_passes
from onnxscript.rewriter import MatchResult, RewriteRuleSet
from onnxscript.rewriter.rules.common._fuse_pad_into_conv import FuseConvPad

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.cleanup.folding import hidden_defaults, inferred_shapes
from structopt_onnx.rewriting.passes import Cleanup

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class PadIntoConv(Cleanup):
    """Has no options."""

    name: ClassVar[str] = "pad-into-conv"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""
        kinds = {node.op_type for node in model.graph.all_nodes()}
        if not {"Conv", "Pad"} <= kinds:
            return
        with hidden_defaults(model), inferred_shapes(model):
            _RULES.apply_to_model(model)
        onnx_ir_passes.RemoveUnusedNodesPass()(model)


class _PadIntoConv(FuseConvPad):  # type: ignore[misc] # the library has no types
    """The library's rule; before opset 11 Pad has no inputs but its data, where it fails."""

    def check(self, context: Any, x: Any, pad: Any, conv: Any) -> Any:  # noqa: ANN401 - the library's signature
        node = pad.producer()
        if len(node.inputs) == 1 or node.inputs[1] is None:
            return MatchResult().fail("pads are an attribute")
        return super().check(context, x, pad, conv)


_RULES = RewriteRuleSet([_PadIntoConv.rule()])
