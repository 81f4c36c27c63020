"""The cost of the region that a patch touches, before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode, Operand
from structopt_onnx.model.inference import infer_outputs, node_proto
from structopt_onnx.model.scope import inner_nodes
from structopt_onnx.rewriting.cost import Cost, node_cost, node_macs, spared, weight_cost
from structopt_onnx.rewriting.encodings import encoded_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.rewriting.target import Target

Dims = tuple[int, ...]


def patch_cost(
    patch: Patch, facts: Facts, target: Target, *, encoded: bool = False
) -> tuple[Cost, Cost]:
    """Compare the nodes and weights that a patch takes out with those it puts in.

    Parameters
    ----------
    patch, facts
        The patch, and what is known of the model.
    target
        Predicts the seconds.
    encoded
        Whether weights with zeros count by what they take encoded; that saves no time.

    Returns
    -------
    tuple of Cost
        Before and after, with predicted seconds on the target. Weights that live on count on
        neither side, unless they get new numbers: then by what they take encoded.
    """
    dying = [v.const_value for v in patch.dying_initializers() if v.const_value]
    before = weight_cost(dying)
    after = Cost()
    fresh_weights: dict[Fresh, ir.TensorProtocol] = {}
    for scope, edit in patch.edits.items():
        for node in edit.remove:
            for inner in inner_nodes(node):
                before += node_cost(inner, facts)
        after += _added(scope, edit, facts, fresh_weights)
    after += weight_cost(fresh_weights.values())
    was, becomes = _replaced(patch)
    if encoded:
        was += spared(dying)
        becomes += spared(fresh_weights.values())
    return (
        replace(before, seconds=target.seconds(before)) + was,
        replace(after, seconds=target.seconds(after)) + becomes,
    )


def _replaced(patch: Patch) -> tuple[Cost, Cost]:
    """Return old and new numbers as they are stored; zeros save no time."""
    pairs = [
        (value.const_value, tensor)
        for edit in patch.edits.values()
        for value, tensor in edit.replace_data.items()
        if value.const_value is not None
    ]
    was = sum(encoded_bytes(old) for old, _ in pairs)
    return Cost(bytes=was), Cost(bytes=sum(encoded_bytes(new) for _, new in pairs))


def _added(scope: Scope, edit: Edit, facts: Facts, weights: dict[Fresh, ir.TensorProtocol]) -> Cost:
    known = _Known(facts)
    for operand in edit.operands():
        if isinstance(operand, Fresh) and operand.tensor is not None:
            weights[operand] = operand.tensor
            known.note(operand, operand.tensor.dtype, operand.tensor.shape.numpy())
    for old, new in edit.rewire.items():
        if isinstance(new, Fresh):
            known.note(new, old.dtype, facts.concrete(old))
    total = Cost()
    for node in edit.add:
        known.infer(scope, node)
        operands = [known.dims(operand) for operand in node.inputs]
        attributes = {attribute.name: attribute for attribute in node.attrs()}
        outputs = [known.dims(output) for output in node.outputs]
        macs = node_macs(node.op_type, attributes, operands, outputs) if not node.domain else 0
        total += Cost(macs=macs, nodes=1)
    return total


class _Known:
    """Types and concrete shapes of existing values and of those that an edit makes."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._dims: dict[Fresh, Dims] = {}
        self._dtypes: dict[Fresh, ir.DataType] = {}

    def note(self, fresh: Fresh, dtype: ir.DataType | None, dims: Sequence[int] | None) -> None:
        if dtype is not None:
            self._dtypes.setdefault(fresh, dtype)
        if dims is not None:
            self._dims.setdefault(fresh, tuple(int(d) for d in dims))

    def dims(self, operand: Operand) -> Dims | None:
        if isinstance(operand, Fresh):
            return self._dims.get(operand)
        return self.facts.concrete(operand)

    def dtype(self, operand: Operand) -> ir.DataType | None:
        if isinstance(operand, Fresh):
            return self._dtypes.get(operand)
        return operand.dtype if operand is not None else None

    def infer(self, scope: Scope, node: NewNode) -> None:
        """Note what the operator's inference function says about a node's outputs."""
        types: dict[str, ir.TypeAndShape] = {}
        constants: dict[str, ir.TensorProtocol] = {}
        # Shapes hardly depend on types, which models without value_info leave out; that of a
        # shape or of axes beside the data is not the data's.
        given = (self.dtype(i) for i in node.inputs)
        likely = next((d for d in given if d and d.is_floating_point()), ir.DataType.FLOAT)
        for index, operand in enumerate(node.inputs):
            dims = self.dims(operand)
            if dims is not None:
                dtype = self.dtype(operand) or likely
                types[f"in{index}"] = ir.TypeAndShape(ir.TensorType(dtype), ir.Shape(dims))
            tensor = operand.tensor if isinstance(operand, Fresh) else self.facts.tensor(operand)
            if tensor is not None:
                constants[f"in{index}"] = tensor
        names = [f"in{k}" if operand is not None else "" for k, operand in enumerate(node.inputs)]
        outputs = [f"out{k}" for k in range(len(node.outputs))]
        proto = node_proto(node.op_type, node.domain, names, outputs, node.attrs())
        opsets = {d: v for d in ("", node.domain) if (v := self.facts.opset(scope, d)) is not None}
        inferred = infer_outputs(proto, types, constants, opsets)
        for name, output in zip(outputs, node.outputs, strict=True):
            found = inferred.get(name)
            if found is None:
                continue
            static = found.shape is not None and found.shape.is_static()
            dims = tuple(found.shape.numpy()) if found.shape is not None and static else None
            self.note(output, found.type.dtype if found.type is not None else None, dims)
