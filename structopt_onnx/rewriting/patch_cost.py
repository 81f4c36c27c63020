"""The cost of the region that a patch touches, before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand
from structopt_onnx.model.inference import infer_outputs, node_proto
from structopt_onnx.rewriting.cost import Cost, node_macs, weight_cost

if TYPE_CHECKING:
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.rewriting.target import Target

Dims = tuple[int, ...]


def patch_cost(patch: Patch, facts: Facts, target: Target) -> tuple[Cost, Cost]:
    """Compare the nodes and weights that a patch takes out with those it puts in.

    Returns
    -------
    tuple of Cost
        Before and after, with predicted seconds on the target. Weights that live on count on
        neither side.
    """
    before = weight_cost(v.const_value for v in patch.dying_initializers() if v.const_value)
    after = Cost()
    fresh_weights: dict[Fresh, ir.TensorProtocol] = {}
    for scope, edit in patch.edits.items():
        for node in edit.remove:
            before += Cost(macs=_macs(node, facts), nodes=1)
        after += _added(scope, edit, facts, fresh_weights)
    after += weight_cost(fresh_weights.values())
    return (
        replace(before, seconds=target.seconds(before)),
        replace(after, seconds=target.seconds(after)),
    )


def _macs(node: ir.Node, facts: Facts) -> int:
    return node_macs(
        node.op_type,
        node.attributes,
        [facts.concrete(value) for value in node.inputs],
        [facts.concrete(value) for value in node.outputs],
    )


def _added(scope: Scope, edit: Edit, facts: Facts, weights: dict[Fresh, ir.TensorProtocol]) -> Cost:
    shapes: dict[Fresh, Dims | None] = {}
    for operand in edit.operands():
        if isinstance(operand, Fresh) and operand.tensor is not None:
            weights[operand] = operand.tensor
            shapes[operand] = tuple(int(d) for d in operand.tensor.shape.numpy())
    for old, new in edit.rewire.items():
        if isinstance(new, Fresh):
            shapes.setdefault(new, facts.concrete(old))
    total = Cost()
    for node in edit.add:
        _infer(scope, node, facts, shapes)
        operands = [_dims(operand, facts, shapes) for operand in node.inputs]
        attributes = {attribute.name: attribute for attribute in node.attrs()}
        outputs = [shapes.get(output) for output in node.outputs]
        macs = node_macs(node.op_type, attributes, operands, outputs) if not node.domain else 0
        total += Cost(macs=macs, nodes=1)
    return total


def _dims(operand: Operand, facts: Facts, shapes: dict[Fresh, Dims | None]) -> Dims | None:
    return shapes.get(operand) if isinstance(operand, Fresh) else facts.concrete(operand)


def _infer(scope: Scope, node: NewNode, facts: Facts, shapes: dict[Fresh, Dims | None]) -> None:
    if all(shapes.get(output) is not None for output in node.outputs):
        return
    known: dict[str, ir.TypeAndShape] = {}
    constants: dict[str, ir.TensorProtocol] = {}
    for index, operand in enumerate(node.inputs):
        dims = _dims(operand, facts, shapes)
        if dims is not None:
            known[f"in{index}"] = ir.TypeAndShape(ir.TensorType(_dtype(operand)), ir.Shape(dims))
        tensor = operand.tensor if isinstance(operand, Fresh) else facts.tensor(operand)
        if tensor is not None:
            constants[f"in{index}"] = tensor
    names = [f"in{k}" if operand is not None else "" for k, operand in enumerate(node.inputs)]
    outputs = [f"out{k}" for k in range(len(node.outputs))]
    proto = node_proto(node.op_type, node.domain, names, outputs, node.attrs())
    opsets = {d: v for d in ("", node.domain) if (v := facts.opset(scope, d)) is not None}
    inferred = infer_outputs(proto, known, constants, opsets)
    for name, output in zip(outputs, node.outputs, strict=True):
        shape = inferred[name].shape if name in inferred else None
        if shape is not None and shape.is_static():
            shapes.setdefault(output, tuple(int(d) for d in shape.numpy()))


def _dtype(operand: Operand) -> ir.DataType:
    if isinstance(operand, Fresh):
        return operand.tensor.dtype if operand.tensor is not None else ir.DataType.FLOAT
    return (operand.dtype if operand is not None else None) or ir.DataType.FLOAT
