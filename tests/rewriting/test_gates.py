from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes.cleanup.remove_identities import RemoveIdentities
from structopt_onnx.rewriting.gates import Deny, Fuel, MustPay, NameFilter
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.passes import Cleanup, Pass
from structopt_onnx.rewriting.target import CpuTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

_TEXT = """
g (float[2,2] x) => (float[2,2] y)
<float[2,2] w = {1, 2, 3, 4}, float[2,2] v = {4, 3, 2, 1}, float[2,2] u = {1, 1, 2, 2}> {
  ["enc/one"] a = MatMul(x, w)
  ["enc/two"] b = MatMul(a, v)
  ["dec/one"] y = MatMul(b, u)
}
"""


@dataclass(frozen=True)
class Replace(Pass):
    """Replace each MatMul by a chain of operators, its weight by another."""

    name: ClassVar[str] = "replace"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    chain: str = "Relu"

    def propose(self, scope, facts) -> Iterator[Patch]:
        for node in list(scope.graph):
            if node.op_type == "MatMul":
                yield self._patch(node, scope)

    def _patch(self, node: ir.Node, scope) -> Patch:
        value: ir.Value | Fresh = node.inputs[0]
        nodes = []
        for op_type in self.chain.split("+"):
            fresh = Fresh("v")
            operands = (value,) if op_type != "Gemm" else (value, node.inputs[1])
            nodes.append(NewNode(op_type, operands, (fresh,)))
            value = fresh
        edit = Edit((node,), tuple(nodes), rewire={node.outputs[0]: value})
        return Patch(f"about {node.name}", node, {scope: edit})


@dataclass(frozen=True)
class Canonical(Replace):
    name: ClassVar[str] = "canonical"
    canonical: ClassVar[bool] = True


@dataclass(frozen=True)
class Lossy(Replace):
    name: ClassVar[str] = "lossy"
    exactness: ClassVar[Exactness] = Exactness.LOSSY


@dataclass(frozen=True)
class Library(Cleanup):
    name: ClassVar[str] = "library"
    exactness: ClassVar[Exactness] = Exactness.BITWISE

    def run(self, model: ir.Model) -> None:
        nodes = list(model.graph)
        if len(nodes) > 1:
            nodes[0].outputs[0].replace_all_uses_with(nodes[0].inputs[0])
            model.graph.remove(nodes[0])


def _run(build, step, *gates) -> tuple[PassManager, ir.Model]:
    shapes = dict.fromkeys("ab", (2, 2))
    manager = PassManager(CpuTarget(), gates, shapes, check_each_patch=True)
    return manager, manager.run(build(_TEXT), [step])


def _titles(manager: PassManager) -> list[str]:
    # A patch that reads what an earlier one replaced waits for the next sweep.
    return sorted(entry.title for entry in manager.record.applied)


def _codes(manager: PassManager) -> list[tuple[str, str]]:
    return [(entry.refusal.code, entry.refusal.node) for entry in manager.record.refused]


@pytest.mark.parametrize("objective", ["time", "bytes", "macs", "parameters"])
def test_what_lowers_the_objective_pays(build, objective):
    manager, _ = _run(build, Replace(), MustPay(CpuTarget(), objective))
    assert len(manager.record.applied) == 3


def test_what_changes_nothing_does_not_pay(build):
    manager, out = _run(build, Replace("Gemm"), MustPay(CpuTarget()))
    assert [n.op_type for n in out.graph] == ["MatMul"] * 3
    assert _codes(manager) == [
        ("does-not-pay", "enc/one"),
        ("does-not-pay", "enc/two"),
        ("does-not-pay", "dec/one"),
    ]


def test_more_nodes_can_pay_where_the_objective_falls(build):
    manager, _ = _run(build, Replace("Relu+Neg"), MustPay(CpuTarget(), "macs"))
    assert len(manager.record.applied) == 3
    manager, _ = _run(build, Replace("Relu+Neg"), MustPay(CpuTarget(), "time"))
    assert manager.record.applied == []


def test_the_planner_knows_better_whether_a_lossy_patch_takes_less_time(build):
    gate = MustPay(CpuTarget(), "time")
    manager, _ = _run(build, Lossy("Relu+Neg"), gate)
    assert len(manager.record.applied) == 3
    manager, _ = _run(build, Lossy("Gemm+Neg"), gate)
    assert manager.record.applied == []


@pytest.mark.parametrize("objective", ["time", "bytes", "macs", "parameters"])
def test_fewer_nodes_pay_where_the_objective_stays(build, objective):
    model = build("g (float[2] x) => (float[2] y) { i = Identity(x) y = Relu(i) }")
    manager = PassManager(CpuTarget(), [MustPay(CpuTarget(), objective)])
    assert len(manager.run(model, [RemoveIdentities()]).graph) == 1


def test_a_weight_that_others_read_is_not_saved(build):
    model = build(_TEXT.replace("(a, v)", "(a, w)"))
    manager = PassManager(CpuTarget(), [MustPay(CpuTarget(), "bytes")])
    manager.run(model, [Replace()])
    assert _titles(manager) == ["about dec/one"]


def test_canonical_passes_need_not_pay(build):
    manager, _ = _run(build, Canonical("Gemm"), MustPay(CpuTarget()))
    assert len(manager.record.applied) == 3


@pytest.mark.parametrize(
    ("only", "skip", "expected"),
    [
        ((), (), ["enc/one", "enc/two", "dec/one"]),
        (("enc/*",), (), ["enc/one", "enc/two"]),
        ((), ("*one",), ["enc/two"]),
        (("enc/*",), ("*one",), ["enc/two"]),
        (("nothing",), (), []),
        (("enc/one", "dec/*"), (), ["enc/one", "dec/one"]),
        (("ENC/*",), (), []),
    ],
)
def test_the_name_filter(build, only, skip, expected):
    manager, _ = _run(build, Replace(), NameFilter(only, skip))
    assert _titles(manager) == sorted(f"about {name}" for name in expected)
    refused = {"enc/one", "enc/two", "dec/one"} - set(expected)
    assert {node for _, node in _codes(manager)} == refused
    assert {code for code, _ in _codes(manager)} <= {"name-filter"}


def test_library_steps_obey_gates(build):
    for gate, code in [
        (NameFilter(only=("enc/*",)), "name-filter"),
        (Deny(frozenset({"library"})), "rolled-back"),
        (Fuel(0), "out-of-fuel"),
    ]:
        manager, out = _run(build, Library(), gate)
        assert len(out.graph) == 3
        assert _codes(manager) == [(code, "library")]


def test_denied_passes_do_nothing(build):
    manager, _ = _run(build, Replace(), Deny(frozenset({"replace", "other"})))
    assert manager.record.applied == []
    assert {code for code, _ in _codes(manager)} == {"rolled-back"}
    manager, _ = _run(build, Replace(), Deny(frozenset({"other"})))
    assert len(manager.record.applied) == 3


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
def test_fuel_ends(build, limit: int):
    manager, out = _run(build, Replace(), Fuel(limit))
    applied = min(limit, 3)
    assert len(manager.record.applied) == applied
    assert sorted(n.op_type for n in out.graph) == ["MatMul"] * (3 - applied) + ["Relu"] * applied
    assert len(_codes(manager)) == 3 - applied


def test_a_library_step_takes_one_unit_of_fuel(build):
    manager, out = _run(build, Library(), Fuel(1))
    assert len(out.graph) == 2
    assert len(manager.record.applied) == 1


def test_what_another_gate_refuses_takes_no_fuel(build):
    manager, _ = _run(build, Replace(), NameFilter(skip=("enc/one",)), Fuel(1))
    assert _titles(manager) == ["about enc/two"]


def test_no_limit_is_no_limit(build):
    fuel = Fuel()
    manager, _ = _run(build, Replace(), fuel)
    assert len(manager.record.applied) == fuel.used == 3


@dataclass(frozen=True)
class Zeroed(Pass):
    """Writes zeros into every weight."""

    name: ClassVar[str] = "zeroed"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def propose(self, scope, facts):
        for node in scope.graph:
            weight = node.inputs[1]
            data = {weight: ir.tensor(np.zeros_like(weight.const_value.numpy()))}
            yield Patch(f"about {node.name}", node, {scope: Edit(replace_data=data)})


@dataclass(frozen=True)
class Refitted(Zeroed):
    name: ClassVar[str] = "refitted"
    canonical: ClassVar[bool] = True


@pytest.mark.parametrize("only", ["enc/one", "w"])
def test_new_numbers_go_by_the_names_of_node_and_weight(build, only):
    facts = PassManager(CpuTarget()).facts(build(_TEXT))
    gate = NameFilter(only=(only,))
    for step, expected in ((Zeroed(), 1), (Refitted(), 3)):
        patches = list(step.propose(facts.scopes[0], facts))
        admitted = [p.title for p in patches if gate.admit(step, p, facts) is None]
        assert admitted == ["about enc/one", "about enc/two", "about dec/one"][:expected]
