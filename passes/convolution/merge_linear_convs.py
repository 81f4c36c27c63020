"""merge-linear-convs: two convolutions with nothing between them become one, where that is less.

What it does
    Composes the kernels of a convolution and the one that alone reads it, pointwise, grouped or
    of any size, and folds the first's bias into the second's.

Why
    Nothing between them means that they are one linear map; blocks written for training (a
    pointwise expansion before a pointwise projection, a kernel in two steps) can have more
    products than it needs.

Leaves alone
    Pairs whose composition has more products; a padded second convolution, unless the first has
    one tap, stride 1, no padding and no bias: zeros around the first's result are not what it
    makes of zeros around its input. Results read elsewhere, and weights that are not stored.

Exactness
    ROUNDING: the same linear map, with its products multiplied out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir

from structopt_onnx.linalg.narrowing import narrowed
from structopt_onnx.model.edit import AttributeValue, Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.convolution.composition import composed_kernel, composed_window
from structopt_onnx.passes.convolution.geometry import Window, integer, window
from structopt_onnx.rewriting.passes import NodePass, Refusal

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope

_BIASED = 3  # inputs of a convolution with a bias


@dataclass(frozen=True, eq=False)
class Pair:
    """Two convolutions, the second the only reader of the first, and their windows."""

    first: ir.Node
    second: ir.Node
    windows: tuple[Window, Window]


@dataclass(frozen=True)
class MergeLinearConvs(NodePass[Pair]):
    """Has no options."""

    name: ClassVar[str] = "merge-linear-convs"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    roots: ClassVar[frozenset[str]] = frozenset({"Conv"})
    refusals: ClassVar[dict[str, str]] = {
        "bias-not-constant": "a bias may change from run to run",
        "bias-under-padding": "the second convolution pads with zeros, the first would with bias",
        "padded-second": "the second convolution pads what the first has made of padding",
        "pads-depend-on-size": "auto_pad depends on a size that may change, or is not known",
        "not-finite": "the type can't hold the merged weight or bias",
        "read-elsewhere": "the first's result is read elsewhere, or a graph output",
        "weight-not-stored": "a weight is computed or can be overridden",
    }

    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Pair | Refusal | None:
        """Look for a convolution that this one reads, and whose composition has less products."""
        del scope
        value, name = node.inputs[0], node.name or ""
        first = None if value is None else value.producer()
        if value is None or first is None or first.domain != "" or first.op_type != "Conv":
            return None
        if first.graph is not node.graph:
            return None
        windows = window(first, facts), window(node, facts)
        one, two = windows
        if one is None or two is None:
            return Refusal("pads-depend-on-size", f"of '{(node if one else first).name}'", name)
        pair = Pair(first, node, (one, two))
        if not _pays(pair, facts):
            return None
        code = _unsafe(pair, value, facts)
        return pair if code is None else Refusal(code, f"behind '{first.name}'", name)

    def rewrite(self, scope: Scope, facts: Facts, match: Pair) -> Patch | Refusal:
        """Describe the composed convolution."""
        first, second = match.first, match.second
        one, two = match.windows
        arrays = [np.asarray(facts.array(n.inputs[1])) for n in (first, second)]
        wide = [array.astype(np.float64) for array in arrays]
        groups = [integer(node, "group", 1) for node in (first, second)]
        kernel, group = composed_kernel(wide[0], groups[0], wide[1], groups[1], match.windows)
        biases = [_bias(node, facts) for node in (first, second)]
        name = second.outputs[0].name or "merged"
        merged = {"weight": kernel}
        if biases[0] is not None or biases[1] is not None:
            total = np.zeros(len(wide[1])) if biases[1] is None else biases[1]
            if biases[0] is not None:
                sums = wide[1].reshape(*wide[1].shape[:2], -1).sum(-1)
                per_group = biases[0].reshape(groups[1], -1)
                spread = np.repeat(per_group, len(sums) // groups[1], axis=0)
                total = total + (sums * spread).sum(1)
            merged["bias"] = total
        inputs: list[ir.Value | Fresh | None] = [first.inputs[0]]
        for what, array in merged.items():
            stored = narrowed(array, arrays[1].dtype)
            if stored is None:
                return Refusal("not-finite", f"{what} behind '{first.name}'", second.name or "")
            inputs.append(Fresh(f"{name}_{what}", ir.tensor(stored)))
        taps, dilations = composed_window(one, two)
        attributes: dict[str, AttributeValue] = {
            "kernel_shape": taps,
            "strides": tuple(s * t for s, t in zip(one.strides, two.strides, strict=True)),
            "dilations": dilations,
            "pads": two.pads if any(two.pads) else one.pads,
            "group": group,
        }
        made = Fresh(name)
        node = NewNode("Conv", tuple(inputs), (made,), attributes)
        edit = Edit((first, second), (node,), (), {second.outputs[0]: made})
        title = f"'{first.name or first.outputs[0].name}' and '{second.name or name}' are one"
        return Patch(title, second, {scope: edit})


def _pays(pair: Pair, facts: Facts) -> bool:
    """Whether the composition has no more products than the two have together."""
    one, two = (facts.dims(node.inputs[1]) for node in (pair.first, pair.second))
    middle = facts.concrete(pair.first.outputs[0])
    made = facts.concrete(pair.second.outputs[0])
    if one is None or two is None or None in one or None in two or middle is None or made is None:
        return False
    known = [[d for d in dims if d is not None] for dims in (one, two)]
    groups = [integer(node, "group", 1) for node in (pair.first, pair.second)]
    kernel, _ = composed_window(*pair.windows)
    inputs = known[0][1] * groups[0] // gcd(*groups)
    places = prod(made[2:])
    apart = prod(known[0]) * prod(middle[2:]) + prod(known[1]) * places
    return known[1][0] * inputs * prod(kernel) * places <= apart


def _unsafe(pair: Pair, value: ir.Value, facts: Facts) -> str | None:
    one, two = pair.windows
    if value.is_graph_output() or len(value.uses()) > 1:
        return "read-elsewhere"
    if any(two.pads):
        if not one.is_point or set(one.strides) != {1}:
            return "padded-second"
        if len(pair.first.inputs) == _BIASED and pair.first.inputs[2] is not None:
            return "bias-under-padding"
    for node in (pair.first, pair.second):
        weight = node.inputs[1]
        if weight is None or not weight.is_initializer() or facts.tensor(weight) is None:
            return "weight-not-stored"
        bias = node.inputs[2] if len(node.inputs) == _BIASED else None
        if bias is not None and facts.tensor(bias) is None:
            return "bias-not-constant"
    return None


def _bias(node: ir.Node, facts: Facts) -> np.ndarray | None:
    array = facts.array(node.inputs[2]) if len(node.inputs) == _BIASED else None
    return None if array is None else array.astype(np.float64)
