"""A pair of thin products in the place of one: the edit behind factor-matmul."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand, reading_replacements
from structopt_onnx.model.patch import Patch

if TYPE_CHECKING:
    from structopt_onnx.linalg.low_rank import OutputBasis
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.passes.low_rank.matmul_site import MatmulSite, Use

Vector = npt.NDArray[np.float64]

# Gemm's third input is optional from this operator set on.
_GEMM_WITHOUT_C = 11


@dataclass(frozen=True, eq=False)
class Fit:
    """Directions to keep, for a product whose features are multiplied by scales.

    Parameters
    ----------
    basis
        The directions of the scaled product.
    mean
        Its mean when the fit is centred, float64 [m].
    scales
        One per feature, positive, float64 [m]; None stands for ones.
    """

    basis: OutputBasis
    mean: Vector | None
    scales: Vector | None = None


def factored(site: MatmulSite, scope: Scope, facts: Facts, fit: Fit, rank: int) -> Patch:
    """Describe the edit that puts a pair of factors in a weight's place at every use.

    Parameters
    ----------
    site, scope, facts
        The weight, where it lies, and what is known there.
    fit
        The directions to keep.
    rank
        How many of them.
    """
    scales = np.ones(site.shape[0]) if fit.scales is None else fit.scales
    upper, lower = fit.basis.factors(scales[:, None] * site.matrix(facts), rank)
    lost = None if fit.mean is None else (fit.mean - upper @ (upper.T @ fit.mean)) / scales
    upper = upper / scales[:, None]
    right = site.uses[0].weight_index == 1
    factors = (
        constant(site, "in", lower.T if right else lower),
        constant(site, "out", upper.T if right else upper),
    )
    edit = Edit(remove=(), add=(), rewire={})
    for use in site.uses:
        bias = None if lost is None or use.bias is None else use.bias + use.scale * lost
        part = _pair(site, use, factors, bias, facts.opset(scope) or 0)
        edit = Edit(
            remove=edit.remove + part.remove,
            add=edit.add + part.add,
            rewire={**edit.rewire, **part.rewire},
        )
    edit = replace(edit, add=reading_replacements(edit.add, edit.rewire))
    rows, columns = site.shape
    title = f"{site.weight.name}: {rows} x {columns} at rank {rank}"
    return Patch(title, site.uses[0].node, {scope: edit})


def _pair(
    site: MatmulSite,
    use: Use,
    factors: tuple[Fresh, Fresh],
    bias: Vector | None,
    opset: int,
) -> Edit:
    name = use.node.outputs[0].name or "y"
    thin = Fresh(f"{name}_thin")
    right = use.weight_index == 1
    flag = "transA" if right else "transB"
    turned = use.node.op_type == "Gemm" and flag in use.node.attributes
    turned = turned and bool(use.node.attributes[flag].as_int())
    operands: tuple[Operand, ...]
    operands = (use.data, factors[0]) if right else (factors[0], use.data)
    first = NewNode("MatMul", operands, (thin,))
    if turned:
        zero = (constant(site, "zero", np.zeros(1)),) if opset < _GEMM_WITHOUT_C else ()
        first = NewNode("Gemm", operands + zero, (thin,), {flag: 1})
    second = wide_product(site, use, thin, factors[1], bias)
    return replace(second, add=(first, *second.add))


def wide_product(
    site: MatmulSite, use: Use, thin: Fresh, factor: Fresh, bias: Vector | None
) -> Edit:
    """Describe the second of two products and the addition behind it, in place of a use."""
    name = use.node.outputs[0].name or "y"
    wide = Fresh(f"{name}_wide")
    operands: tuple[Operand, ...]
    operands = (thin, factor) if use.weight_index == 1 else (factor, thin)
    if use.node.op_type == "Gemm":
        addend: tuple[Operand, ...] = tuple(use.node.inputs[2:])
        if bias is not None:
            addend = (_bias(site, use, bias, 1),)
        kept = {k: v for k, v in use.node.attributes.items() if k in {"alpha", "beta"}}
        if bias is not None:
            kept.pop("beta", None)
        second = NewNode("Gemm", (*operands, *addend), (wide,), kept)
        return Edit((use.node,), (second,), rewire={use.node.outputs[0]: wide})
    second = NewNode("MatMul", operands, (wide,))
    if bias is None or use.add is None:
        return Edit((use.node,), (second,), rewire={use.node.outputs[0]: wide})
    old = next(i for i in use.add.inputs if i is not use.node.outputs[0])
    biased = Fresh(f"{name}_biased")
    rank = len(old.shape or ()) if old is not None else 1
    third = NewNode("Add", (wide, _bias(site, use, bias, rank)), (biased,))
    return Edit((use.node, use.add), (second, third), rewire={use.add.outputs[0]: biased})


def _bias(site: MatmulSite, use: Use, bias: Vector, rank: int) -> Fresh:
    """Shape a bias over the output features, of at least the rank it had before."""
    tail = (bias.size,) if use.output_axis == -1 else (bias.size, 1)
    return constant(site, "bias", bias.reshape((1,) * (rank - len(tail)) + tail))


def constant(site: MatmulSite, suffix: str, array: Vector) -> Fresh:
    """Return a new constant of the weight's type, named after it."""
    data = np.ascontiguousarray(array, site.tensor.dtype.numpy())
    return Fresh(f"{site.weight.name}_{suffix}", ir.tensor(data))
