"""hoist-stride: what a strided 1x1 convolution or Slice would leave out is not made at all.

What it does
    Follows the demand of convolutions and pools with a kernel of 1, and of Slices that take every
    so many positions, against the flow of data, through operators that work on each position by
    itself, to convolutions and pools that can take it into their own strides (a demand analysis
    over the whole graph; per axis, the greatest common divisor of what the readers of a value
    use). An operand that is read in full elsewhere, as the shortcut of a residual block, is
    subsampled by a MaxPool with a kernel of 1. ``SAME`` padding is written out first, for it would
    change with the stride.

Why
    ResNets with the stride in the first 1x1 convolution make three quarters of the stage before
    for nothing. OpenVINO optimizes strides in a similar way inside its own format.

Leaves alone
    Values that somebody reads in full, among them graph outputs; convolutions and pools whose
    padding depends on a size that may change; pools with partial windows whose number would
    change; operators that may broadcast in space; whatever costs more in subsampling than it saves.

Exactness
    ROUNDING: the same products, but a runtime may sum them in another order. onnxruntime adds them
    up in blocks of 128, and of 256 or more where a map has 64 positions or fewer (MLAS,
    convolve.cpp): sums of up to 128 terms and maps that stay larger keep their bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING, ClassVar

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.convolution.demand import Demand
from structopt_onnx.passes.convolution.geometry import (
    POOLS,
    integers,
    is_open,
    kernel_shape,
    sliced_window,
)
from structopt_onnx.passes.convolution.thinning import regions, thinned
from structopt_onnx.rewriting.passes import Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True)
class HoistStride(Pass):
    """Has no options."""

    name: ClassVar[str] = "hoist-stride"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    refusals: ClassVar[dict[str, str]] = {
        "ceil-mode": "a pool rounds its number of outputs up, and it would change",
        "indices-read": "the pool's Indices output is used",
        "pads-depend-on-size": "auto_pad depends on a size that may change, or is not known",
        "padded-point": "padding puts what a strided convolution reads between even positions",
        "read-in-full": "another reader, or the caller, needs the positions left out",
        "may-broadcast": "the sizes of the operands are not known to be equal",
        "nothing-to-save": "subsampling the other operands takes longer than what it saves",
    }

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield one patch per region whose values can be thinned, and the strides that stay."""
        strided = [node for node in scope.graph if _is_strided_point(node, facts)]
        if not strided:
            return
        demand = Demand(scope, facts)
        for node in strided:
            refusal = _why_not(node, demand)
            if refusal is not None:
                yield Refusal(*refusal, node.name or "")
        for region in regions(scope, demand):
            yield thinned(scope, demand, region)


def _is_strided_point(node: ir.Node, facts: Facts) -> bool:
    if node.domain == "" and node.op_type == "Slice":
        slides = sliced_window(node, facts)
        return slides is not None and set(slides.strides) != {1}
    if node.domain != "" or not (node.op_type == "Conv" or node.op_type in POOLS) or is_open(node):
        return False
    kernel = kernel_shape(node, facts) or ()
    ones = (1,) * len(kernel)
    strides, dilations = (integers(node, name, ones) for name in ("strides", "dilations"))
    rows = zip(kernel, strides, dilations, strict=True)
    return any(s > 1 if k == 1 else gcd(s, d) > 1 for k, s, d in rows)


def _why_not(node: ir.Node, demand: Demand) -> tuple[str, str] | None:
    """Return why the stride of a node stays where it is; None when it moves, or has nowhere to."""
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    if source is None or producer is None or demand.is_thinned(source) or node.op_type != "Conv":
        return None
    if not any(step > 1 for step in demand.read(node)):
        return "padded-point", "its padding reaches between the positions it would read"
    convolves = producer.op_type == "Conv" or producer.op_type in POOLS
    if producer.domain != "" or not (convolves or demand.pointwise.knows(producer)):
        return None
    wanted = demand.wanted(source)
    if not any(step > 1 for step in wanted):
        return "read-in-full", f"'{source.name}' is"
    if convolves:
        return demand.absorbs(producer) or "nothing-to-save", f"of '{producer.name}'"
    if demand.pointwise.operands(producer) is None:
        return "may-broadcast", f"of '{producer.name}'"
    return "nothing-to-save", f"before '{producer.name}'"
