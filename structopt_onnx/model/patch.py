"""A patch: one edit of a model as a value, checked and then applied. Nothing else edits a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.errors import InternalError
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.inference import infer_outputs, node_proto
from structopt_onnx.model.scope import Scope, scopes, subgraphs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PASS_KEY = "structopt_onnx.pass"  # noqa: S105 - a pass, not a password
PATCH_KEY = "structopt_onnx.patch"
REPLACED_KEY = "structopt_onnx.replaced"
_REPLACED_NAMES = 8


class Names:
    """Every name taken in a model: values and nodes of all scopes."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for scope in scopes(model):
            graph = scope.graph
            self._taken.update(v.name for v in graph.inputs if v.name)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.update(o.name for o in node.outputs if o.name)
                if node.name:
                    self._taken.add(node.name)

    def fresh(self, wish: str) -> str:
        """Return `wish`, or the first of ``wish_1``, ``wish_2``... that nobody has."""
        name, number = wish, 0
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name


def _with_inner(node: ir.Node) -> Iterator[ir.Node]:
    yield node
    for _, graph in subgraphs(node):
        for inner in graph:
            yield from _with_inner(inner)


@dataclass(frozen=True, eq=False)
class Patch:
    """One edit of a model, described and not yet done.

    Parameters
    ----------
    title
        What it does, in one line, for the report.
    anchor
        The node it is about; new nodes go where the first removed node of a scope stood.
    edits
        What happens in each scope.
    """

    title: str
    anchor: ir.Node
    edits: Mapping[Scope, Edit]

    def removed(self) -> frozenset[ir.Node]:
        """Return the nodes this patch takes out, without those inside their subgraphs."""
        return frozenset(node for edit in self.edits.values() for node in edit.remove)

    def stale(self) -> bool:
        """Whether an earlier patch has already taken out something that this one is about."""
        return any(
            any(node.graph is not scope.graph for node in edit.remove)
            or any(old.graph is None for old in edit.rewire)
            or any(isinstance(v, ir.Value) and v.graph is None for v in edit.operands())
            for scope, edit in self.edits.items()
        )

    def dying_initializers(self) -> tuple[ir.Value, ...]:
        """Return the initializers that nothing will read once the patch is applied."""
        gone = {inner for node in self.removed() for inner in _with_inner(node)}
        moved = {old for edit in self.edits.values() for old in edit.rewire}
        kept = {operand for edit in self.edits.values() for operand in edit.operands()}
        touched = {i for node in gone for i in node.inputs if i is not None} | moved
        return tuple(
            value
            for value in sorted(touched, key=lambda v: v.name or "")
            if value.is_initializer()
            and not value.is_graph_input()
            and not value.is_graph_output()
            and value not in kept
            and (value in moved or all(use.node in gone for use in value.uses()))
        )

    def check(self) -> None:
        """Make sure the edit is well-formed; costs the patch and its boundary, not the model.

        Raises
        ------
        InternalError
            Naming the scope and the value or node at fault; the model is untouched.
        """
        gone = self.removed()
        for scope, edit in self.edits.items():
            for problem in _problems(scope, edit, gone):
                raise InternalError(f"{self.title}: in {scope.path}: {problem}")

    def apply(self, names: Names, *, pass_name: str, number: int) -> tuple[str, ...]:
        """Carry the edit out.

        Parameters
        ----------
        names
            The names taken in the model; extended by what is added.
        pass_name, number
            Written into the new nodes' metadata, with the names of the values replaced.

        Returns
        -------
        tuple of str
            Names of the values that the removed nodes made.
        """
        dying = self.dying_initializers()
        replaced = tuple(o.name or "" for n in self.removed() for o in n.outputs)
        provenance = {
            PASS_KEY: pass_name,
            PATCH_KEY: str(number),
            REPLACED_KEY: ",".join(sorted(replaced)[:_REPLACED_NAMES]),
        }
        made: dict[Fresh, ir.Value] = {}
        for scope, edit in self.edits.items():
            _apply_edit(scope, edit, made, names, provenance)
        for value in dying:
            if value.graph is not None and not value.uses():
                del value.graph.initializers[value.name or ""]
        return replaced


def _problems(scope: Scope, edit: Edit, gone: frozenset[ir.Node]) -> Iterator[str]:
    for node in edit.remove:
        yield from _removal_problems(scope, edit, node, gone)
    made = {output for node in edit.add for output in node.outputs}
    for operand in edit.operands():
        if isinstance(operand, Fresh):
            if operand.tensor is None and operand not in made:
                yield f"fresh value '{operand.name}' is made by no node"
        elif operand is not None:
            if operand.producer() in gone:
                yield f"value '{operand.name}' is read after its node was removed"
            if not scope.sees(operand.graph):
                yield f"value '{operand.name}' is not visible here"
    for old, new in edit.rewire.items():
        yield from _rewire_problems(old, new)
    for value, tensor in edit.replace_data.items():
        yield from _data_problems(value, tensor)


def _data_problems(value: ir.Value, tensor: ir.TensorProtocol) -> Iterator[str]:
    present = value.const_value
    if present is None or not value.is_initializer():
        yield f"'{value.name}' is no initializer"
    elif (present.dtype, present.shape) != (tensor.dtype, tensor.shape):
        yield f"new data of '{value.name}' is {tensor.dtype.name}{tensor.shape}"


def _removal_problems(
    scope: Scope, edit: Edit, node: ir.Node, gone: frozenset[ir.Node]
) -> Iterator[str]:
    if node.graph is not scope.graph:
        yield f"node '{node.name}' to be removed is not here"
    inner = set(_with_inner(node))
    for output in node.outputs:
        if output in edit.rewire:
            continue
        if output.is_graph_output():
            yield f"output '{output.name}' of removed node '{node.name}' is a graph output"
        if any(use.node not in gone and use.node not in inner for use in output.uses()):
            yield f"output '{output.name}' of removed node '{node.name}' is still read"


def _rewire_problems(old: ir.Value, new: ir.Value | Fresh) -> Iterator[str]:
    if isinstance(new, Fresh):
        if new.tensor is not None and old.is_graph_output():
            yield f"graph output '{old.name}' can't become an initializer"
        return
    if old.is_graph_output():
        yield f"graph output '{old.name}' must be made by a new node"
    if old.dtype is not None and new.dtype is not None and old.dtype != new.dtype:
        yield f"'{old.name}' is {old.dtype.name}, its replacement {new.dtype.name}"


def _apply_edit(
    scope: Scope,
    edit: Edit,
    made: dict[Fresh, ir.Value],
    names: Names,
    provenance: Mapping[str, str],
) -> None:
    graph = scope.graph
    heirs = {new: old for old, new in edit.rewire.items() if isinstance(new, Fresh)}
    for operand in edit.operands():
        if isinstance(operand, Fresh) and operand.tensor is not None and operand not in made:
            made[operand] = _register(graph, operand, operand.tensor, names)
    nodes = [
        _make_node(scope, node, made, heirs, names=names, provenance=provenance)
        for node in edit.add
    ]
    if edit.remove:
        graph.insert_before(edit.remove[0], nodes)
    else:
        graph.extend(nodes)
    for old, new in edit.rewire.items():
        old.replace_all_uses_with(
            made[new] if isinstance(new, Fresh) else new, replace_graph_outputs=True
        )
    for node in edit.remove:
        for inner in _with_inner(node):
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    graph.remove(edit.remove)
    for value, tensor in edit.replace_data.items():
        value.const_value = tensor
        value.metadata_props.update(provenance)


def _register(graph: ir.Graph, fresh: Fresh, tensor: ir.TensorProtocol, names: Names) -> ir.Value:
    name = names.fresh(fresh.name)
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def _make_node(
    scope: Scope,
    node: NewNode,
    made: dict[Fresh, ir.Value],
    heirs: Mapping[Fresh, ir.Value],
    *,
    names: Names,
    provenance: Mapping[str, str],
) -> ir.Node:
    inputs = [made[i] if isinstance(i, Fresh) else i for i in node.inputs]
    new = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attrs(),
        num_outputs=len(node.outputs),
        name=names.fresh(node.outputs[0].name + "/" + node.op_type),
        metadata_props=dict(provenance),
    )
    inferred = _infer(scope, node, inputs)
    for index, (fresh, value) in enumerate(zip(node.outputs, new.outputs, strict=True)):
        made[fresh] = value
        heir_of = heirs.get(fresh)
        if heir_of is not None:
            value.name, value.type, value.shape = heir_of.name, heir_of.type, heir_of.shape
            heir_of.name = None
            continue
        value.name = names.fresh(fresh.name)
        known = inferred.get(f"out{index}")
        if known is not None:
            value.type, value.shape = known.type, known.shape
    return new


def _infer(
    scope: Scope, node: NewNode, inputs: Sequence[ir.Value | None]
) -> dict[str, ir.TypeAndShape]:
    proto = node_proto(
        node.op_type,
        node.domain,
        [f"in{k}" if value is not None else "" for k, value in enumerate(inputs)],
        [f"out{k}" for k in range(len(node.outputs))],
        node.attrs(),
    )
    outer = scope
    while outer.parent is not None:
        outer = outer.parent
    present = [(f"in{k}", value) for k, value in enumerate(inputs) if value is not None]
    return infer_outputs(
        proto,
        {name: ir.TypeAndShape(v.type, v.shape) for name, v in present if v.type is not None},
        {name: v.const_value for name, v in present if v.const_value is not None},
        outer.graph.opset_imports,
    )
