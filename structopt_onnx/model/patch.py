"""A patch: one edit of a model as a value, checked and then applied. Nothing else edits a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from structopt_onnx.errors import InternalError
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.scope import Scope, inner_nodes, scopes, subgraphs
from structopt_onnx.model.wellformed import edit_problems, infer_added, outer_first

if TYPE_CHECKING:
    from collections.abc import Mapping

PASS_KEY = "structopt_onnx.pass"  # noqa: S105 - a pass, not a password
PATCH_KEY = "structopt_onnx.patch"
REPLACED_KEY = "structopt_onnx.replaced"
_REPLACED_NAMES = 8


class Names:
    """Every name taken in a model: values and nodes of all scopes."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        self._last: dict[str, int] = {}
        for scope in scopes(model):
            graph = scope.graph
            self._taken.update(v.name for v in graph.inputs if v.name)
            self._taken.update(graph.initializers)
            for node in graph:
                self._taken.update(o.name for o in node.outputs if o.name)
                if node.name:
                    self._taken.add(node.name)

    def hand_over(self, value: ir.Value) -> None:
        """Make the name of a value that goes away free for what replaces it."""
        name = value.name or ""
        value.name = self.fresh(f"{name}_unused")
        self._taken.discard(name)

    def fresh(self, wish: str) -> str:
        """Return `wish`, or the first of ``wish_1``, ``wish_2``... that nobody has."""
        name, number = wish, self._last.get(wish, 0)
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        self._last[wish] = number
        return name


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
            any(node.graph is None for node in edit.remove)
            or any(old.graph is None for old in edit.rewire)
            or any(isinstance(v, ir.Value) and v.graph is None for v in edit.operands())
            or any(value.graph is None for value in edit.replace_data)
            for edit in self.edits.values()
        )

    def dying_initializers(self) -> tuple[ir.Value, ...]:
        """Return the initializers that nothing will read once the patch is applied."""
        gone = {inner for node in self.removed() for inner in inner_nodes(node)}
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
        for scope, problem in edit_problems(self.edits):
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
        replaced = tuple(sorted(o.name or "" for n in self.removed() for o in n.outputs))
        provenance = {
            PASS_KEY: pass_name,
            PATCH_KEY: str(number),
            REPLACED_KEY: ",".join(replaced[:_REPLACED_NAMES]),
        }
        made: dict[Fresh, ir.Value] = {}
        for scope, edit in outer_first(self.edits):
            for old, new in edit.rewire.items():
                if isinstance(new, Fresh) and new.name == old.name and _leaves(old, edit, dying):
                    names.hand_over(old)
            _apply_edit(scope, edit, made, names, provenance)
        for value in dying:
            if value.graph is not None and not value.uses():
                del value.graph.initializers[value.name or ""]
        return replaced


def _leaves(old: ir.Value, edit: Edit, dying: tuple[ir.Value, ...]) -> bool:
    """Whether a replaced value goes away without `_settle` passing on its name."""
    made = old.producer()
    if made is None:
        return old in dying
    new = edit.rewire[old]
    return made in edit.remove and isinstance(new, Fresh) and new.tensor is not None


def _apply_edit(
    scope: Scope,
    edit: Edit,
    made: dict[Fresh, ir.Value],
    names: Names,
    provenance: Mapping[str, str],
) -> None:
    graph = scope.graph
    heirs = _heirs(edit)
    known = infer_added(scope, edit)
    for operand in edit.operands():
        if isinstance(operand, Fresh) and operand.tensor is not None and operand not in made:
            made[operand] = _register(graph, operand, operand.tensor, names)
    nodes = []
    for description in edit.add:
        node = _make_node(description, made, names, provenance)
        for fresh, value in zip(description.outputs, node.outputs, strict=True):
            made[fresh] = value
            _settle(value, fresh, heirs.get(fresh), known.get(fresh), names)
        nodes.append(node)
    if edit.remove:
        graph.insert_before(edit.remove[0], nodes)
    else:
        graph.extend(nodes)
    for old, new in edit.rewire.items():
        old.replace_all_uses_with(
            made[new] if isinstance(new, Fresh) else new, replace_graph_outputs=True
        )
    for removed in edit.remove:
        _dismantle(removed)
    graph.remove(edit.remove)
    for value, tensor in edit.replace_data.items():
        value.const_value = tensor
        value.metadata_props.update(provenance)


def _heirs(edit: Edit) -> dict[Fresh, ir.Value]:
    """Map new values to the old one each stands for; a graph output comes before others."""
    heirs: dict[Fresh, ir.Value] = {}
    for old, new in edit.rewire.items():
        if isinstance(new, Fresh) and (new not in heirs or old.is_graph_output()):
            heirs[new] = old
    return heirs


def _settle(
    value: ir.Value,
    fresh: Fresh,
    heir_of: ir.Value | None,
    known: ir.TypeAndShape | None,
    names: Names,
) -> None:
    """Give a new value its name, type and shape."""
    if known is not None:
        value.type, value.shape = known.type, known.shape
    if heir_of is None:
        value.name = names.fresh(fresh.name)
        return
    if heir_of.type is not None:
        value.type = heir_of.type
    if heir_of.shape is not None or heir_of.is_graph_output():  # an interface stays as declared
        value.shape = heir_of.shape
    if heir_of.producer() is None:  # an input or initializer keeps its name
        value.name = names.fresh(fresh.name)
        return
    name = heir_of.name or fresh.name
    # The old value may live on unread, as one of several outputs of a node.
    heir_of.name = names.fresh(f"{name}_unused")
    value.name, value.doc_string = name, heir_of.doc_string
    value.meta.update(heir_of.meta)
    value.metadata_props.update(heir_of.metadata_props)


def _dismantle(node: ir.Node) -> None:
    """Take a node's inputs, and its subgraphs' nodes and constants, out of use for good."""
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)
    for _, graph in subgraphs(node):
        for inner in graph:
            _dismantle(inner)
        graph.remove(tuple(graph))
        graph.initializers.clear()


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
    node: NewNode,
    made: Mapping[Fresh, ir.Value],
    names: Names,
    provenance: Mapping[str, str],
) -> ir.Node:
    new = ir.Node(
        node.domain,
        node.op_type,
        [made[i] if isinstance(i, Fresh) else i for i in node.inputs],
        node.attrs(),
        num_outputs=len(node.outputs),
        name=names.fresh(node.outputs[0].name + "/" + node.op_type),
        metadata_props=dict(provenance),
    )
    for _, graph in subgraphs(new):
        _name_body(graph, names, provenance)
    return new


def _name_body(graph: ir.Graph, names: Names, provenance: Mapping[str, str]) -> None:
    """Make the names in a new node's body unique in the model."""
    values = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        node.metadata_props.update(provenance)
        node.name = names.fresh(node.name or node.op_type)
        values += [output for output in node.outputs if output.name != ""]
        for _, inner in subgraphs(node):
            _name_body(inner, names, provenance)
    for value in dict.fromkeys(values):
        value.name = names.fresh(value.name or "value")
