"""What a file can do without, where it would be larger than the original's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir

_OWN_KEYS = "structopt_onnx."


def forget_inferred(model: ir.Model, original: ir.Model) -> bool:
    """Take out types and shapes that the original did not state; tell whether there were any."""
    stated = {v.name for node in original.graph for v in node.outputs if v.type or v.shape}
    kept = {*model.graph.outputs}
    inferred = [
        value
        for node in model.graph
        for value in node.outputs
        if (value.type or value.shape) and value not in kept and value.name not in stated
    ]
    for value in inferred:
        value.type = value.shape = None
    return bool(inferred)


def forget_defaults(model: ir.Model, original: ir.Model) -> bool:
    """Take out attributes that say what the operator does anyway; tell whether there were any."""
    del original
    found = [
        (node, name)
        for node in model.graph
        if node.domain == ""
        for name, default in _defaults(node.op_type, model.graph.opset_imports.get("", 1)).items()
        if name in node.attributes and node.attributes[name].value == default
    ]
    for node, name in found:
        del node.attributes[name]
    return bool(found)


def _defaults(op_type: str, opset: int) -> dict[str, int]:
    """Return the integer attributes of an operator that have a default in its schema."""
    try:
        schema = onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return {}
    return {
        name: attribute.default_value.i
        for name, attribute in schema.attributes.items()
        if attribute.default_value.type == onnx.AttributeProto.INT
    }


def forget_provenance(model: ir.Model, original: ir.Model) -> bool:
    """Take out the record and which pass made what; tell whether there was any."""
    del original
    held = [model.metadata_props, *(n.metadata_props for g in model.graphs() for n in g)]
    keys = [(props, key) for props in held for key in props if key.startswith(_OWN_KEYS)]
    for props, key in keys:
        del props[key]
    return bool(keys)


SLIMMING: dict[str, Callable[[ir.Model, ir.Model], bool]] = {
    "inferred types and shapes": forget_inferred,
    "attributes at their defaults": forget_defaults,
    "the record that bisect replays, and which pass made what": forget_provenance,
}
"""From what is missed least to what is missed most."""
