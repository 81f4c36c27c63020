"""Types and shapes of one node's outputs, by the operator's own inference function."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.checker
import onnx.shape_inference
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Constants this small (shapes, axes, pads) are shown to the inference function.
_SHOWN_ELEMENTS = 64


def _type_proto(known: ir.TypeAndShape) -> onnx.TypeProto:
    proto = onnx.TypeProto()
    if known.type is not None:
        ir.serde.serialize_type_into(proto, known.type)
    if known.shape is not None:
        ir.serde.serialize_shape_into(proto, known.shape)
    return proto


def infer_outputs(
    node: onnx.NodeProto,
    inputs: Mapping[str, ir.TypeAndShape],
    constants: Mapping[str, ir.TensorProtocol],
    opset_imports: Mapping[str, int],
) -> dict[str, ir.TypeAndShape]:
    """Infer the types and shapes of a node's outputs.

    Parameters
    ----------
    node
        The node; its input names are keys of `inputs`.
    inputs
        Type and shape per input name; nothing is inferred when one is missing.
    constants
        Tensors known for inputs; only small ones are looked at.
    opset_imports
        Version per operator domain.

    Returns
    -------
    dict
        Type and shape per output name. Empty for operators without a schema, and when the
        inference function has nothing to say or finds that the inputs contradict each other.
    """
    version = opset_imports.get(node.domain)
    if version is None or any(attribute.HasField("g") for attribute in node.attribute):
        return {}
    if any(name and name not in inputs for name in node.input):
        return {}
    shown = {name: ir.to_proto(t) for name, t in constants.items() if t.size <= _SHOWN_ELEMENTS}
    try:
        inferred = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, version, node.domain),
            node,
            {name: _type_proto(known) for name, known in inputs.items()},
            shown,
            opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in opset_imports.items()],
        )
    except (
        onnx.defs.SchemaError,
        onnx.shape_inference.InferenceError,
        onnx.checker.ValidationError,
        ValueError,
        RuntimeError,
    ):
        return {}
    return {
        name: ir.TypeAndShape(
            ir.serde.deserialize_type_proto_for_type(proto),
            ir.serde.deserialize_type_proto_for_shape(proto),
        )
        for name, proto in inferred.items()
    }


def node_proto(
    op_type: str,
    domain: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    attributes: Sequence[ir.Attr],
) -> onnx.NodeProto:
    """Make the proto of a node that exists only as a description."""
    proto = onnx.helper.make_node(op_type, inputs, outputs, domain=domain)
    proto.attribute.extend(ir.to_proto(attribute) for attribute in attributes)
    return proto
