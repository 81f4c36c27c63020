"""conv-before-pool: a 1x1 convolution that makes fewer channels comes before the average.

What it does
    A 1x1 convolution with fewer outputs than inputs, read off an AveragePool that keeps the size,
    changes places with it. Where the pool counts padding, the bias is added behind it.

Why
    The pool then averages fewer channels (the pooled branch of an Inception block).

Leaves alone
    Pools that somebody else reads, sizes that are not known, and whatever is not cheaper: a pool
    with a stride leaves the convolution less to do where it is.

Exactness
    ROUNDING: the same function, summed in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.geometry import counts_padding, is_open, kernel_shape, window
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

# Multiply-accumulates that take as long as averaging one element at one tap, and as one element
# of a sum or an activation (onnxruntime, one thread, AVX-512: maps of 14x14 to 56x56).
_MACS_PER_TAP = 0.7
_MACS_PER_ELEMENT = 3.5
_FUSED = {"Clip", "HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"}
"""Activations that onnxruntime computes within a convolution, and not within a pool."""


@dataclass(frozen=True, eq=False)
class AveragedInput:
    """A pool, the 1x1 convolution that reads it, and whether its bias must be added after both."""

    pool: ir.Node
    conv: ir.Node
    bias_last: bool


@dataclass(frozen=True)
class ConvBeforePool(NodePass[AveragedInput]):
    """Has no options."""

    name: ClassVar[str] = "conv-before-pool"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Conv"})
    canonical: ClassVar[bool] = True  # costs count no pools; this pass does
    refusals: ClassVar[dict[str, str]] = {
        "computed-bias": "the pool's padding counts, and the bias to add behind it is not stored",
        "read-elsewhere": "the average is read elsewhere, or a graph output",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> AveragedInput | Refusal | None:
        """Look for a convolution of one tap that narrows what a pool makes."""
        del scope
        value, weight = node.inputs[0], facts.dims(node.inputs[1])
        pool = None if value is None else value.producer()
        if value is None or pool is None or pool.domain != "" or pool.op_type != "AveragePool":
            return None
        slides = window(node, facts)
        one_tap = slides is not None and slides.is_point and set(slides.strides) == {1}
        if not one_tap or is_open(pool) or pool.graph is not node.graph or weight is None:
            return None
        bias = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - where a bias is
        bias_last = bias is not None and counts_padding(pool)
        if not _pays(pool, node, facts, bias_last=bias_last):
            return None
        if value.is_graph_output() or len(value.uses()) > 1:
            return Refusal("read-elsewhere", f"'{value.name}' is", node.name or "")
        if bias is not None and bias_last and facts.tensor(bias) is None:
            return Refusal("computed-bias", f"'{bias.name}'", node.name or "")
        return AveragedInput(pool, node, bias_last)

    def rewrite(self, scope: Scope, facts: Facts, match: AveragedInput) -> Patch:
        """Describe the convolution, the pool and maybe a sum, in this order."""
        pool, conv = match.pool, match.conv
        weight, *bias = conv.inputs[1:]
        name = conv.outputs[0].name or "averaged"
        made, last = Fresh(f"{name}_convolved"), Fresh(name)
        kept = () if match.bias_last else tuple(bias)
        nodes = [
            NewNode("Conv", (pool.inputs[0], weight, *kept), (made,), conv.attributes),
            NewNode("AveragePool", (made,), (last,), pool.attributes),
        ]
        if match.bias_last:
            array = np.asarray(facts.array(bias[0]))
            column = array.reshape(-1, *(1,) * ((facts.rank(weight) or 2) - 2))
            averaged, last = last, Fresh(f"{name}_biased")
            nodes.append(
                NewNode("Add", (averaged, Fresh(f"{name}_bias", ir.tensor(column))), (last,))
            )
        edit = Edit((pool, conv), tuple(nodes), (), {conv.outputs[0]: last})
        where = conv.name or conv.outputs[0].name
        return Patch(f"'{where}' and the pool before it change places", conv, {scope: edit})


def _pays(pool: ir.Node, conv: ir.Node, facts: Facts, *, bias_last: bool) -> bool:
    """Whether averaging fewer channels saves more than what comes on top."""
    x, y = facts.concrete(pool.inputs[0]), facts.concrete(conv.outputs[0])
    weight, kernel = facts.concrete(conv.inputs[1]), kernel_shape(pool, facts)
    if x is None or y is None or weight is None or kernel is None:
        return False
    before, after = prod(x[2:]), prod(y[2:])
    saved = _MACS_PER_TAP * prod(kernel) * (x[1] - y[1]) * after
    convolved = (before - after) * prod(weight)
    readers = {use.node.op_type for use in conv.outputs[0].uses()}
    elements = y[1] * after * (bias_last + (len(readers) == 1 and readers <= _FUSED))
    return saved > convolved + _MACS_PER_ELEMENT * elements
