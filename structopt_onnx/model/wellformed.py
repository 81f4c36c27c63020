"""Whether a patch is well-formed: what it reads exists and is visible, and nobody loses a value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.inference import infer_outputs, node_proto
from structopt_onnx.model.scope import Scope, inner_nodes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Known = dict[Fresh, ir.TypeAndShape]


def outer_first(edits: Mapping[Scope, Edit]) -> list[tuple[Scope, Edit]]:
    """List edits so that what a scope makes is there before scopes inside it read it."""
    return sorted(edits.items(), key=lambda item: item[0].depth)


def edit_problems(edits: Mapping[Scope, Edit]) -> Iterator[tuple[Scope, str]]:
    """Yield each fault of a patch's edits with the scope it is in; reads only."""
    check = _Check(edits)
    for scope, edit in outer_first(edits):
        for problem in check.of(scope, edit):
            yield scope, problem


def infer_added(scope: Scope, edit: Edit) -> Known:
    """Infer type and shape of the values that an edit's new nodes make.

    A value that takes an old one's place has the old one's type where that is known; operators
    that have no schema leave their outputs out.
    """
    known: Known = {}
    heirs = {new: old for old, new in edit.rewire.items() if isinstance(new, Fresh)}
    for operand in edit.operands():
        if isinstance(operand, Fresh) and operand.tensor is not None:
            shape = ir.Shape(operand.tensor.shape.numpy())
            known[operand] = ir.TypeAndShape(ir.TensorType(operand.tensor.dtype), shape)
    for node in edit.add:
        inferred = _infer(scope, node, known)
        for index, output in enumerate(node.outputs):
            found = inferred.get(f"out{index}")
            if output in heirs and heirs[output].type is not None and found is None:
                found = ir.TypeAndShape(heirs[output].type, heirs[output].shape)
            if found is not None:
                known[output] = found
    return known


def _infer(scope: Scope, node: NewNode, known: Known) -> dict[str, ir.TypeAndShape]:
    types: dict[str, ir.TypeAndShape] = {}
    constants: dict[str, ir.TensorProtocol] = {}
    for index, operand in enumerate(node.inputs):
        name = f"in{index}"
        if isinstance(operand, Fresh):
            tensor = operand.tensor
            if operand in known:
                types[name] = known[operand]
        else:
            # A default that the caller can override says nothing about the run.
            fixed = operand is not None and not operand.is_graph_input()
            tensor = operand.const_value if operand is not None and fixed else None
            if operand is not None and operand.type is not None:
                types[name] = ir.TypeAndShape(operand.type, operand.shape)
        if tensor is not None:
            constants[name] = tensor
    proto = node_proto(
        node.op_type,
        node.domain,
        ["" if operand is None else f"in{k}" for k, operand in enumerate(node.inputs)],
        [f"out{k}" for k in range(len(node.outputs))],
        node.attrs(),
    )
    return infer_outputs(proto, types, constants, scope.outermost.graph.opset_imports)


def _graphs_within(nodes: frozenset[ir.Node]) -> Iterator[ir.Graph]:
    for node in nodes:
        for inner in inner_nodes(node):
            yield from (graph for _, graph in subgraphs(inner))


class _Check:
    """What has to be known about all edits of a patch to judge each of them."""

    def __init__(self, edits: Mapping[Scope, Edit]) -> None:
        removed = [node for edit in edits.values() for node in edit.remove]
        self.gone = frozenset(inner for node in removed for inner in inner_nodes(node))
        self.dead = frozenset(_graphs_within(frozenset(removed)))
        self.moved = frozenset(old for edit in edits.values() for old in edit.rewire)
        self.homes: dict[Fresh, Scope] = {}
        self.made: set[Fresh] = set()

    def of(self, scope: Scope, edit: Edit) -> Iterator[str]:
        if scope.graph in self.dead:
            yield "the scope lies inside a removed node"
        yield from self._removals(scope, edit)
        yield from self._constants(scope, edit)
        made: set[Fresh] = set()
        for node in edit.add:
            yield from self._node(scope, node, made)
        for new in edit.rewire.values():
            yield from self._operand(scope, new, made)
        yield from self._rewiring(scope, edit)
        for value, tensor in edit.replace_data.items():
            yield from _data_problems(scope, value, tensor)

    def _removals(self, scope: Scope, edit: Edit) -> Iterator[str]:
        if len(set(edit.remove)) < len(edit.remove):
            yield "a node is removed twice"
        for node in edit.remove:
            if node.graph is not scope.graph:
                yield f"node '{node.name}' to be removed is not here"
            for output in node.outputs:
                if output in edit.rewire:
                    continue
                if output.is_graph_output():
                    yield f"output '{output.name}' of removed node '{node.name}' is a graph output"
                if any(use.node not in self.gone for use in output.uses()):
                    yield f"output '{output.name}' of removed node '{node.name}' is still read"

    def _constants(self, scope: Scope, edit: Edit) -> Iterator[str]:
        for operand in edit.operands():
            if isinstance(operand, Fresh) and operand.tensor is not None:
                if not operand.name:
                    yield "a new constant has no name"
                home = self.homes.setdefault(operand, scope)
                if not scope.sees(home.graph):
                    yield f"constant '{operand.name}' is made in {home.path}, not visible here"
        for fresh in edit.initializers:
            if fresh.tensor is None:
                yield f"new initializer '{fresh.name}' has no data"

    def _node(self, scope: Scope, node: NewNode, made: set[Fresh]) -> Iterator[str]:
        if not node.outputs:
            yield f"new {node.op_type} makes nothing"
        if node.domain not in scope.outermost.graph.opset_imports:
            yield f"new {node.op_type} is of domain '{node.domain}', which is not imported"
        for operand in node.inputs:
            yield from self._operand(scope, operand, made)
        for graph in (g for attribute in node.attrs() for g in _attribute_graphs(attribute)):
            if graph in self.dead:
                yield f"new {node.op_type} takes the body of a removed node: clone it"
            for value in _captured(graph):
                yield from self._operand(scope, value, made)
        for output in node.outputs:
            if output.tensor is not None or not output.name:
                yield f"output '{output.name}' of new {node.op_type} has data or no name"
            if output in self.made:
                yield f"fresh value '{output.name}' is made twice"
            self.made.add(output)
            made.add(output)

    def _operand(
        self, scope: Scope, operand: ir.Value | Fresh | None, made: set[Fresh]
    ) -> Iterator[str]:
        if isinstance(operand, Fresh):
            if operand.tensor is None and operand not in made:
                yield f"fresh value '{operand.name}' is made by no node before it is read"
        elif operand is not None:
            if operand.producer() in self.gone:
                yield f"value '{operand.name}' is read after its node was removed"
            if operand in self.moved:
                yield f"value '{operand.name}' is read and replaced"
            if not scope.sees(operand.graph):
                yield f"value '{operand.name}' is not visible here"

    def _rewiring(self, scope: Scope, edit: Edit) -> Iterator[str]:
        known = infer_added(scope, edit) if edit.rewire else {}
        named: set[Fresh] = set()
        for old, new in edit.rewire.items():
            if old.graph is not scope.graph:
                yield f"'{old.name}' to be replaced is not here"
            if old.is_graph_output():
                yield from _output_problems(old, new, named)
            dtype = _dtype(new, known)
            if old.dtype is not None and dtype is not None and old.dtype != dtype:
                yield f"'{old.name}' is {old.dtype.name}, its replacement {dtype.name}"


def _output_problems(old: ir.Value, new: ir.Value | Fresh, named: set[Fresh]) -> Iterator[str]:
    if old.producer() is None:
        yield f"graph output '{old.name}' is also an input or initializer"
    if not isinstance(new, Fresh) or new.tensor is not None:
        yield f"graph output '{old.name}' must be made by a new node"
    elif new in named:
        yield f"graph output '{old.name}' has the same replacement as another"
    else:
        named.add(new)


def _dtype(value: ir.Value | Fresh, known: Known) -> ir.DataType | None:
    if isinstance(value, ir.Value):
        return value.dtype
    found = known.get(value)
    return found.type.dtype if found is not None and found.type is not None else None


def _attribute_graphs(attribute: ir.Attr) -> Iterator[ir.Graph]:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.GRAPH:
        yield attribute.as_graph()
    elif attribute.type == ir.AttributeType.GRAPHS:
        yield from attribute.as_graphs()


def _captured(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the values that a new node's body reads from around it."""
    inside = {graph} | {
        inner for node in graph for n in inner_nodes(node) for _, inner in subgraphs(n)
    }
    for node in graph:
        for reader in inner_nodes(node):
            for value in reader.inputs:
                if value is not None and value.graph not in inside:
                    yield value


def _data_problems(scope: Scope, value: ir.Value, tensor: ir.TensorProtocol) -> Iterator[str]:
    present = value.const_value
    if present is None or not value.is_initializer() or value.graph is not scope.graph:
        yield f"'{value.name}' is no initializer of this scope"
    elif value.is_graph_input():
        yield f"'{value.name}' is a default that the caller can override"
    elif (present.dtype, present.shape) != (tensor.dtype, tensor.shape):
        yield f"new data of '{value.name}' is {tensor.dtype.name}{tensor.shape}"
