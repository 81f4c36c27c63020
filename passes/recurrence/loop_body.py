"""The body of a Scan or Loop as one step of a recurrence over one sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.sizes import Sizes
from structopt_onnx.rewriting.passes import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.dims import Dims

_SEQUENCE_RANK = 3
_STEP_RANK = 2


@dataclass(frozen=True, eq=False)
class LoopBody:
    """One step of a loop, in the terms of `SliceAlgebra`.

    Parameters
    ----------
    nodes
        Those of the body, but for what picks the step's entry of the sequence.
    states
        Value read by the body to the value that it makes for the next step.
    step_input
        What the body reads of the sequence, [N, I].
    sequence
        The sequence outside, [T, N, I].
    initial
        The first value of each state, outside.
    collected
        Outputs of the loop that hold a value of every step, with that value.
    final
        Outputs of the loop that hold the last value of a state, with the state.
    backwards
        Whether the last entry of the sequence comes first, and what is collected too.
    """

    nodes: tuple[ir.Node, ...]
    states: Mapping[ir.Value, ir.Value]
    step_input: ir.Value
    sequence: ir.Value
    initial: Mapping[ir.Value, ir.Value]
    collected: Mapping[ir.Value, ir.Value]
    final: Mapping[ir.Value, ir.Value]
    backwards: bool = False

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """The one value of which each step reads another one."""
        return (self.step_input,)

    def first(self, state: ir.Value) -> ir.Value:
        """Return a value with the shape of a state."""
        return state

    def series(self, value: ir.Value) -> tuple[ir.Value | None, ...]:
        """Return the value itself: the body stands for all steps."""
        return (value,)

    def reads(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Return what a node reads."""
        return tuple(node.inputs)


class BodySizes(Sizes):
    """Sizes in a body, whose inputs have the shapes of what is outside."""

    def __init__(self, body: LoopBody, graph: ir.Graph, facts: Facts, outer: Sizes) -> None:
        self._given: dict[ir.Value, Dims | None] = {
            state: outer.dims(value) for state, value in body.initial.items()
        }
        sequence = outer.dims(body.sequence)
        self._given[body.step_input] = None if sequence is None else sequence[1:]
        super().__init__(graph, facts)

    def dims(self, value: ir.Value | None) -> Dims | None:
        """Return the dimensions of a value, or None when not even its rank is known."""
        given = None if value is None else self._given.get(value)
        return super().dims(value) if given is None else given


def read_scan(node: ir.Node) -> LoopBody | None:
    """Read a Scan over one sequence along its first axis; None for any other."""
    body = node.attributes["body"].as_graph()
    if node.attributes["num_scan_inputs"].as_int() != 1 or len(node.inputs) < _STEP_RANK:
        return None
    states = len(node.inputs) - 1
    collected = len(node.outputs) - states
    way = _integers(node, "scan_input_directions", 1)[0]
    if (
        any(value is None for value in node.inputs)
        or _integers(node, "scan_input_axes", 1) != (0,)
        or _integers(node, "scan_output_axes", collected) != (0,) * collected
        or _integers(node, "scan_output_directions", collected) != (way,) * collected
    ):
        return None
    given = [value for value in node.inputs if value is not None]
    inside, made = list(body.inputs), [_plain(value) for value in body.outputs]
    return LoopBody(
        tuple(body),
        dict(zip(inside[:states], made[:states], strict=True)),
        inside[states],
        given[states],
        dict(zip(inside[:states], given[:states], strict=True)),
        dict(zip(node.outputs[states:], made[states:], strict=True)),
        dict(zip(node.outputs[:states], inside[:states], strict=True)),
        bool(way),
    )


def read_loop(node: ir.Node, facts: Facts, sizes: Sizes) -> LoopBody | Refusal | None:
    """Read a Loop that picks an entry of one sequence in each turn; None for any other.

    Returns
    -------
    LoopBody, Refusal or None
        A refusal where the condition may end it (``may-stop-early``), or where the number of
        turns is not known to be the length of the sequence (``length-differs``).
    """
    body = node.attributes["body"].as_graph()
    turn, going, *inside = body.inputs
    still, *made = (_plain(value) for value in body.outputs)
    picks = [
        use.node
        for use in turn.uses()
        if use.idx == 1 and use.node.op_type == "Gather" and use.node.domain == ""
    ]
    sequence = picks[0].inputs[0] if len(picks) == 1 else None
    known = sizes.dims(sequence)
    if sequence is None or sequence.graph is body or known is None or len(known) != _SEQUENCE_RANK:
        return None
    if len(turn.uses()) > 1 or _integers(picks[0], "axis", 0, default=0) != (0,):
        return None
    given = node.inputs[2:]
    if any(value is None for value in given) or len(given) != len(inside):
        return None
    where = node.name or ""
    if not (_is_true(node.inputs[1], facts) and (still is going or _is_true(still, facts))):
        return Refusal("may-stop-early", "its condition is not constantly true", where)
    turns = sizes.contents(node.inputs[0])
    if turns is None or turns != known[:1]:
        return Refusal("length-differs", f"turns over '{sequence.name}'", where)
    first = [value for value in given if value is not None]
    states = len(inside)
    return LoopBody(
        tuple(inner for inner in body if inner is not picks[0]),
        dict(zip(inside, made[:states], strict=True)),
        picks[0].outputs[0],
        sequence,
        dict(zip(inside, first, strict=True)),
        dict(zip(node.outputs[states:], made[states:], strict=True)),
        dict(zip(node.outputs[:states], inside, strict=True)),
    )


def _plain(value: ir.Value) -> ir.Value:
    """Return what an Identity passes on."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value


def _is_true(value: ir.Value | None, facts: Facts) -> bool:
    if value is None:
        return True
    array = facts.array(value)
    return array is not None and bool(array.all())


def _integers(
    node: ir.Node, name: str, count: int, *, default: int | None = None
) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    if attribute is None:
        return (0,) * count if default is None else (default,)
    return (attribute.as_int(),) if default is not None else tuple(attribute.as_ints())
