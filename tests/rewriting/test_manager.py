from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx_ir as ir
import pytest

from structopt_onnx.errors import InternalError
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.patch import Patch
from structopt_onnx.model.saving import to_proto
from structopt_onnx.rewriting.cost import Cost, graph_cost
from structopt_onnx.rewriting.gates import Fuel, MustPay
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.passes import Choice, Cleanup, NodePass, Option, Pass, Refusal
from structopt_onnx.rewriting.record import Snapshot
from structopt_onnx.rewriting.target import CpuTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHAIN = """
g (float[2] x) => (float[2] y) {
  [one] a = Neg(x)
  [two] b = Neg(a)
  [three] c = Neg(b)
  [four] y = Relu(c)
}
"""


def _bytes(model: ir.Model) -> bytes:
    return to_proto(model).SerializeToString(deterministic=True)


def _manager(*gates, **options) -> PassManager:
    return PassManager(CpuTarget(), gates, check_each_patch=True, **options)


def _replacement(node: ir.Node, scope, op_type: str, *, source: ir.Value | None = None) -> Patch:
    fresh = Fresh("new")
    new = NewNode(op_type, (source or node.inputs[0],), (fresh,))
    edit = Edit((node,), (new,), rewire={node.outputs[0]: fresh})
    return Patch(f"{node.op_type} to {op_type}", node, {scope: edit})


@dataclass(frozen=True)
class PairsOfNeg(NodePass[ir.Node]):
    """-(-x) is x; finds overlapping pairs at once."""

    name: ClassVar[str] = "pairs-of-neg"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    roots: ClassVar[frozenset[str]] = frozenset({"Neg"})

    def match(self, node, scope, facts) -> ir.Node | Refusal | None:
        first = node.inputs[0].producer()
        if first is None or first.op_type != "Neg":
            return Refusal("single", "", node.name or "")
        return node

    def rewrite(self, scope, facts, match: ir.Node) -> Patch:
        first = match.inputs[0].producer()
        edit = Edit((first, match), rewire={match.outputs[0]: first.inputs[0]})
        return Patch("two signs cancel", match, {scope: edit})


@dataclass(frozen=True)
class Swap(Pass):
    """Exchange one operator by another, for ever if its opposite runs too."""

    name: ClassVar[str] = "swap"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    canonical: ClassVar[bool] = True
    old: str = "Relu"
    new: str = "Abs"

    def propose(self, scope, facts) -> Iterator[Patch]:
        for node in scope.graph:
            if node.op_type == self.old:
                yield _replacement(node, scope, self.new)


@dataclass(frozen=True)
class SwapBack(Swap):
    name: ClassVar[str] = "swap-back"
    old: str = "Abs"
    new: str = "Relu"


@dataclass(frozen=True)
class Broken(Pass):
    name: ClassVar[str] = "broken"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    how: str = "raise"

    def propose(self, scope, facts) -> Iterator[Patch]:
        node = next(iter(scope.graph))
        if self.how == "raise":
            raise KeyError("oops")
        if self.how == "malformed":
            yield Patch("loses a value", node, {scope: Edit((node,))})
        if self.how == "cycle":
            last = scope.graph[-2]
            yield _replacement(node, scope, "Abs", source=last.outputs[0])


@dataclass(frozen=True)
class Library(Cleanup):
    name: ClassVar[str] = "library"
    exactness: ClassVar[Exactness] = Exactness.BITWISE
    largest: ClassVar[int | None] = 10
    how: str = "nothing"

    def run(self, model: ir.Model) -> None:
        graph = model.graph
        if self.how == "raise":
            graph.remove(graph[0])
            raise RuntimeError("lost\nits way")
        if self.how in {"shrink", "rename", "input"}:
            graph[0].outputs[0].replace_all_uses_with(graph.inputs[0])
            graph.remove(graph[0])
        if self.how == "rename":
            graph.outputs[0].name = "z"
        if self.how == "input":
            graph.inputs.append(ir.val("extra", ir.DataType.FLOAT, [1]))
        if self.how == "unsorted":
            first = graph[0]
            graph.remove(first)
            graph.append(first)
            graph.append(ir.node("Neg", [graph.inputs[0]], name="dead"))
            graph[-1].outputs[0].name = "dead"
        if self.how == "grow":
            data = ir.tensor([0.0] * 100, name="large")
            value = ir.Value(name="large", const_value=data, type=ir.TensorType(data.dtype))
            graph.register_initializer(value)
        if self.how == "retype":
            graph.outputs[0].shape = ir.Shape(["K"])
            graph.inputs[0].shape = None


# Fixed point -------------------------------------------------------------------------------------


def test_steps_run_until_nothing_changes(build):
    model = build(_CHAIN)
    manager = _manager(MustPay(CpuTarget()))
    out = manager.run(model, [PairsOfNeg()])
    assert [n.op_type for n in out.graph] == ["Neg", "Relu"]
    # The two pairs overlap: the second is stale once the first is gone.
    assert [entry.node for entry in manager.record.applied] == ["two"]
    assert manager.record.sweeps == 2


def test_a_pass_that_needs_several_sweeps_gets_them(build):
    negs = "".join(f"a{k} = Neg({'x' if k == 0 else f'a{k - 1}'})\n" for k in range(9))
    model = build(f"g (float[2] x) => (float[2] y) {{ {negs} y = Relu(a8) }}")
    manager = _manager()
    out = manager.run(model, [PairsOfNeg()])
    assert [n.op_type for n in out.graph] == ["Neg", "Relu"]
    assert [entry.number for entry in manager.record.applied] == [1, 2, 3, 4]


def test_passes_that_undo_each_other_are_a_bug_that_names_them(build):
    with pytest.raises(InternalError, match="no fixed point after 20 sweeps: swap, swap-back"):
        _manager().run(build(_CHAIN), [Swap(), SwapBack()])


def test_a_pass_that_never_ends_is_a_bug_that_names_it(build):
    with pytest.raises(InternalError, match=r"no fixed point after 20 sweeps: swap$"):
        _manager().run(build(_CHAIN), [Swap(new="Relu")])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", "broken: KeyError: 'oops'"),
        ("malformed", "broken: loses a value: in graph: output 'a' of removed node 'one'"),
    ],
)
def test_a_broken_pass_is_named_and_the_model_left_as_it_was(build, how: str, message: str):
    model = build(_CHAIN)
    before = _bytes(model)
    with pytest.raises(InternalError, match=message):
        _manager().run(model, [Broken(how)])
    assert _bytes(model) == before


def test_a_malformed_patch_is_a_bug_even_behind_a_gate(build):
    with pytest.raises(InternalError, match="broken: loses a value"):
        _manager(Fuel(0), MustPay(CpuTarget())).run(build(_CHAIN), [Broken("malformed")])


def test_a_cycle_is_a_bug_that_names_the_patch(build):
    with pytest.raises(InternalError, match="broken, patch 1 left a graph with a cycle"):
        _manager().run(build(_CHAIN), [Broken("cycle")])


# Library steps -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("raise", "library-failed"),
        ("rename", "library-broke-model"),
        ("input", "library-broke-model"),
        ("unsorted", "library-broke-model"),
        ("grow", "library-grew-model"),
    ],
)
def test_a_library_step_that_does_harm_is_refused(build, how: str, code: str):
    model = build(_CHAIN)
    before = _bytes(model)
    manager = _manager()
    out = manager.run(model, [Library(how)])
    assert out is model
    assert _bytes(model) == before
    assert manager.record.applied == []
    assert {entry.refusal.code for entry in manager.record.refused} == {code}


def test_a_library_step_that_does_nothing_is_not_recorded(build):
    model = build(_CHAIN)
    manager = _manager()
    assert manager.run(model, [Library()]) is model
    assert (manager.record.applied, manager.record.refused) == ([], [])


def test_declared_types_come_back_after_a_library_step(build):
    model = build(_CHAIN)
    before = _bytes(model)
    out = _manager().run(model, [Library("retype")])
    assert _bytes(out) == before


def test_a_library_step_runs_on_a_clone_and_is_recorded_by_what_differs(build):
    model = build(_CHAIN)
    before = _bytes(model)
    manager = _manager()
    out = manager.run(model, [Library("shrink")])
    assert _bytes(model) == before
    assert [n.op_type for n in out.graph] == ["Neg", "Neg", "Relu"]
    (entry,) = manager.record.applied
    assert (entry.title, entry.node, entry.before.nodes - entry.after.nodes) == ("-1 Neg", "", 1)


def test_a_library_step_runs_again_only_after_something_else_changed(build):
    manager = _manager()
    out = manager.run(build(_CHAIN), [Library("shrink"), Swap()])
    assert [entry.step for entry in manager.record.applied] == ["library", "swap", "library"]
    assert [n.op_type for n in out.graph] == ["Neg", "Abs"]


def test_a_library_that_does_not_scale_is_left_out(build):
    nodes = "".join(f"a{k} = Neg(x)\n" for k in range(11))
    manager = _manager()
    model = build(f"g (float[2] x) => (float[2] y) {{ {nodes} y = Relu(a10) }}")
    manager.run(model, [Library("raise")])
    (entry,) = manager.record.refused
    assert entry.refusal.code == "too-many-nodes"
    assert entry.refusal.detail == "12 nodes, this library step scales to 10"


# The record --------------------------------------------------------------------------------------


def test_the_record_adds_up_to_what_changed(build):
    model = build(_CHAIN)
    was, before = Snapshot.of(model), graph_cost(model, Facts(model))
    manager = _manager()
    out = manager.run(model, [PairsOfNeg(), Swap(), Library("shrink")])
    now, after = Snapshot.of(out), graph_cost(out, Facts(out))
    applied = manager.record.applied
    assert [entry.number for entry in applied] == list(range(1, len(applied) + 1))
    for field in ("nodes", "macs", "bytes", "parameters"):
        saved = sum(getattr(e.before, field) - getattr(e.after, field) for e in applied)
        assert saved == getattr(before, field) - getattr(after, field)
    assert was.describe(now) == "-3 Neg, -1 Relu, +1 Abs"


def test_a_refusal_is_noted_once(build):
    manager = _manager()
    manager.run(build(_CHAIN), [PairsOfNeg()])
    codes = [(e.step, e.refusal.code, e.refusal.node) for e in manager.record.refused]
    assert codes == [("pairs-of-neg", "single", "one"), ("pairs-of-neg", "single", "three")]


def test_replaced_values_are_recorded(build):
    manager = _manager()
    manager.run(build(_CHAIN), [PairsOfNeg()])
    (entry,) = manager.record.applied
    assert set(entry.replaced) == {"a", "b"}


def test_progress_is_told(build):
    lines: list[str] = []
    _manager(progress=lines.append).run(build(_CHAIN), [Library(), PairsOfNeg()])
    assert lines[:2] == ["library", "pairs-of-neg"]


# Plans -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer(Pass):
    name: ClassVar[str] = "offer"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def propose(self, scope, facts):
        for node in scope.graph:
            if node.op_type == "Neg":
                yield Choice(frozenset({node.name}), node.name, (self._option(node.name),), "w")

    @staticmethod
    def _option(name: str) -> Option:
        def patch(scope, facts) -> Patch | Refusal:
            node = next((n for n in scope.graph if n.name == name), None)
            if node is None:
                return Refusal("superseded", "gone", name)
            return _replacement(node, scope, "Abs")

        return Option("abs", 0.5, Cost(), Cost(), patch)


def _plan(manager: PassManager, model: ir.Model) -> list[Planned]:
    step = Offer()
    return [Planned(step, c, c.options[0]) for c in manager.choices(model, step)]


def test_a_plan_is_applied_and_recorded(build):
    model = build(_CHAIN)
    manager = _manager()
    plan = _plan(manager, model)
    assert manager.apply_plan(model, plan[:2]) == plan[:2]
    assert [n.op_type for n in model.graph] == ["Abs", "Abs", "Neg", "Relu"]
    assert [(e.site, e.option) for e in manager.record.applied] == [
        (("one",), "abs"),
        (("two",), "abs"),
    ]


def test_what_a_plan_can_not_do_any_more_is_refused(build):
    model = build(_CHAIN)
    manager = _manager()
    plan = _plan(manager, model)
    assert manager.apply_plan(model, [plan[0], plan[0], plan[2]]) == [plan[0], plan[2]]
    assert [e.refusal.code for e in manager.record.refused] == ["superseded"]


def test_a_plan_applies_to_a_clone(build):
    model = build(_CHAIN)
    manager = _manager()
    plan = _plan(manager, model)
    clone = model.clone()
    assert len(manager.apply_plan(clone, plan)) == 3
    assert [n.op_type for n in model.graph] == ["Neg", "Neg", "Neg", "Relu"]
    assert [n.op_type for n in clone.graph] == ["Abs", "Abs", "Abs", "Relu"]
