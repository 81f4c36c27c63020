"""Every tensor of a model in the IR, wherever it hangs: initializers and node attributes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping


@dataclass(frozen=True)
class TensorSite:
    """Where a tensor hangs in a model.

    Attributes
    ----------
    value
        The initializer it is the value of, or the output of the Constant node it is the value
        of; None for any other attribute.
    node
        The node whose attribute it is; None for an initializer or a function's default.
    external_allowed
        Whether runtimes accept external data here: initializers and the `value` of Constant
        nodes, outside of functions.
    """

    value: ir.Value | None
    node: ir.Node | None
    external_allowed: bool


def graphs(model: ir.Model) -> Iterator[tuple[ir.Graph, bool]]:
    """Yield every graph of a model, subgraphs included, and whether it belongs to a function."""
    yield model.graph, False
    for subgraph in model.graph.subgraphs():
        yield subgraph, False
    for function in model.functions.values():
        yield function.graph, True
        for subgraph in function.subgraphs():
            yield subgraph, True


def replace_tensors(
    model: ir.Model, replace: Callable[[ir.TensorProtocol, TensorSite], ir.TensorProtocol]
) -> None:
    """Put `replace(tensor, site)` in the place of every tensor of a model.

    Parameters
    ----------
    model
        Changed in place.
    replace
        Gives the tensor to put there, or the one it was given: then nothing is changed.
    """
    for function in model.functions.values():
        for name, attribute in list(function.attributes.items()):
            _replace_in_attribute(
                function.attributes, name, attribute, TensorSite(None, None, False), replace
            )
    for graph, in_function in graphs(model):
        for value in graph.initializers.values():
            if value.const_value is not None:
                site = TensorSite(value, None, not in_function)
                tensor = replace(value.const_value, site)
                if tensor is not value.const_value:
                    value.const_value = tensor
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type not in {ir.AttributeType.TENSOR, ir.AttributeType.TENSORS}:
                    continue
                constant = is_constant(node) and name == "value"
                site = TensorSite(
                    node.outputs[0] if constant else None, node, constant and not in_function
                )
                _replace_in_attribute(node.attributes, name, attribute, site, replace)


def _replace_in_attribute(
    attributes: MutableMapping[str, ir.Attr],
    name: str,
    attribute: ir.Attr,
    site: TensorSite,
    replace: Callable[[ir.TensorProtocol, TensorSite], ir.TensorProtocol],
) -> None:
    if attribute.is_ref() or attribute.value is None:
        return
    doc_string = attribute.doc_string
    # `value` and not `as_tensor()`, whose protocol check takes longer than all else here.
    if attribute.type == ir.AttributeType.TENSOR:
        tensor = replace(attribute.value, site)
        if tensor is not attribute.value:
            attributes[name] = ir.AttrTensor(name, tensor, doc_string=doc_string)
    elif attribute.type == ir.AttributeType.TENSORS:
        tensors = [replace(tensor, site) for tensor in attribute.value]
        if any(new is not old for new, old in zip(tensors, attribute.value, strict=True)):
            attributes[name] = ir.AttrTensors(name, tensors, doc_string=doc_string)


def let_go(model: ir.Model) -> None:
    """Drop the weights of a model that is used no more.

    The IR's objects are in cycles: without this the weights stay until Python's collector comes
    by, which takes as long as few objects are made, however large they are.
    """
    for graph, _ in graphs(model):
        for value in graph.initializers.values():
            value.const_value = None


def is_constant(node: ir.Node) -> bool:
    """Whether a node is the standard's Constant."""
    return node.op_type == "Constant" and node.domain == ""


def detached(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Return a tensor on the same data whose name, notes and marks can be edited apart."""
    shell: ir.TensorProtocol
    if isinstance(tensor, ir.Tensor | ir.ExternalTensor | ir.StringTensor | ir.LazyTensor):
        shell = copy.copy(tensor)
        shell._metadata = None  # noqa: SLF001 - copy.copy shares the store; there is no setter
        shell._metadata_props = dict(tensor.metadata_props)  # noqa: SLF001 - the same
    else:  # the name may be the field of a proto, which is the caller's
        shell = ir.LazyTensor(
            lambda: tensor,
            dtype=tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name,
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )
    shell.meta.update(tensor.meta)
    return shell


def detached_type(type_: ir.TypeProtocol | None) -> ir.TypeProtocol | None:
    """Return a copy of a value's type; onnx_ir's clones share types, and they can be edited."""
    if isinstance(type_, ir.TensorType):
        return ir.TensorType(type_.dtype, denotation=type_.denotation)
    return copy.deepcopy(type_)
