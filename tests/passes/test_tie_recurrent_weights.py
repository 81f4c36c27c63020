from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import pytest
from hypothesis import given

import structopt_onnx as so
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.recurrence.tie_recurrent_weights import TieRecurrentWeights
from structopt_onnx.passes.sharing.share_initializers import ShareInitializers
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_SEEDS = st.integers(0, 2**32 - 1)


def _model(
    op_type: str, layers: int, rng: np.random.Generator, *, noise: float, hidden: int = 4
) -> onnx.ModelProto:
    """Return layers whose weights are those of the first and some noise; residual sums between."""
    rows, float_ = _GATES[op_type] * hidden, onnx.TensorProto.FLOAT
    shapes = {"W": (1, rows, hidden), "R": (1, rows, hidden), "B": (1, 2 * rows)}
    first = {name: rng.standard_normal(shape) / np.sqrt(hidden) for name, shape in shapes.items()}
    nodes, initializers = [], [onnx.numpy_helper.from_array(np.array([1]), "axis")]
    value = "x"
    for k in range(layers):
        for name, array in first.items():
            drawn = array + noise * rng.standard_normal(array.shape)
            tensor = onnx.numpy_helper.from_array(drawn.astype(np.float32), f"{name}{k}")
            initializers.append(tensor)
        inputs = [value, f"W{k}", f"R{k}", f"B{k}"]
        nodes.append(oh.make_node(op_type, inputs, [f"y{k}"], f"layer{k}", hidden_size=hidden))
        nodes.append(oh.make_node("Squeeze", [f"y{k}", "axis"], [f"s{k}"]))
        nodes.append(oh.make_node("Add", [f"s{k}", value], [f"o{k}"]))
        value = f"o{k}"
    nodes[-1].output[0] = "out"
    dims = ["T", "N", hidden]
    graph = oh.make_graph(
        nodes,
        "g",
        [oh.make_tensor_value_info("x", float_, dims)],
        [oh.make_tensor_value_info("out", float_, dims)],
        initializers,
    )
    return oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])


def _stored(proto: onnx.ModelProto) -> int:
    floats = (t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    return sum(int(np.prod(t.dims)) for t in floats)


@given(st.sampled_from(sorted(_GATES)), st.integers(2, 4), _SEEDS)
def test_every_option_stores_what_it_says_and_loses_what_it_predicts(op_type, layers, seed):
    rng = np.random.default_rng(seed)
    proto = _model(op_type, layers, rng, noise=0.01)
    step, manager = TieRecurrentWeights(), PassManager(CpuTarget())
    (choice,) = manager.choices(load(proto), step)
    assert [option.label for option in choice.options] == [
        f"{left} of {layers} sets" for left in range(layers - 1, 0, -1)
    ]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for option in choice.options:
        model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
        assert manager.apply_plan(model, [Planned(step, choice, option)])
        after = to_proto(model)
        onnx.checker.check_model(after, full_check=True)
        assert _stored(proto) - _stored(after) == (
            option.before.parameters - option.after.parameters
        )
        assert option.after.bytes < option.before.bytes
        held = {t.name: onnx.numpy_helper.to_array(t) for t in after.graph.initializer}
        errors = {}
        for node in (n for n in after.graph.node if n.op_type == op_type):
            k = node.name.removeprefix("layer")
            now = [held[name].reshape(-1) for name in node.input[1:4]]
            was = [weights[f"{name}{k}"].reshape(-1) for name in "WRB"]
            lost = sum(
                ((a.astype(np.float64) - b) ** 2).sum() for a, b in zip(was, now, strict=True)
            )
            energy = sum((a.astype(np.float64) ** 2).sum() for a in was)
            total = errors.setdefault(node.input[1], [0.0, 0.0])
            total[0] += lost
            total[1] += energy
        worst = max(lost / energy for lost, energy in errors.values())
        assert worst <= option.error * (1 + 1e-4)
        assert option.error < 3e-3


def test_layers_that_differ_are_left_alone():
    proto = _model("LSTM", 3, np.random.default_rng(0), noise=1.0)
    manager = PassManager(CpuTarget())
    assert manager.choices(load(proto), TieRecurrentWeights()) == []
    assert [entry.refusal.code for entry in manager.record.refused] == ["not-alike"]
    assert manager.choices(load(proto), TieRecurrentWeights(most_error=1.0))


def test_what_is_equal_is_the_business_of_sharing():
    proto = _model("GRU", 2, np.random.default_rng(0), noise=0.0)
    model = PassManager(CpuTarget()).run(load(proto), [ShareInitializers()])
    assert PassManager(CpuTarget()).choices(model, TieRecurrentWeights()) == []


def test_a_budget_in_bytes_buys_one_set(tmp_path):
    rng = np.random.default_rng(0)
    proto = _model("LSTM", 3, rng, noise=0.002, hidden=16)
    x = rng.standard_normal((60, 5, 1, 16)).astype(np.float32)
    out = tmp_path / "out.onnx"
    report = so.optimize(
        proto, out, calibration={"x": x}, max_error=0.02, minimize="bytes", benchmark=False,
        passes="normalize,share-initializers,tie-recurrent-weights",
    ).report  # fmt: skip
    assert [entry.option for entry in report.applied if entry.option] == ["1 of 3 sets"]
    assert report.after.file_bytes < 0.4 * report.before.file_bytes
    assert 0 < report.plan.final_error <= 0.02
    fresh = rng.standard_normal((9, 2, 16)).astype(np.float32)
    was = Session(proto.SerializeToString()).run({"x": fresh})["out"]
    now = Session(out).run({"x": fresh})["out"]
    assert np.linalg.norm(was - now) <= 0.02 * np.linalg.norm(was)
    assert np.linalg.norm(was - now) > 0


def test_directions_are_stored_once(tmp_path):
    rng = np.random.default_rng(0)
    hidden, float_ = 24, onnx.TensorProto.FLOAT
    arrays = {}
    for name, shape in (("W", (1, 3 * hidden, 8)), ("R", (1, 3 * hidden, hidden))):
        one = rng.standard_normal(shape) / 4
        near = one + 0.001 * rng.standard_normal(shape)
        arrays[name] = np.concatenate([one, near]).astype(np.float32)
    node = oh.make_node(
        "GRU", ["x", "W", "R"], ["y"], "gru", hidden_size=hidden, direction="bidirectional"
    )
    graph = oh.make_graph(
        [node],
        "g",
        [oh.make_tensor_value_info("x", float_, ["T", "N", 8])],
        [oh.make_tensor_value_info("y", float_, ["T", 2, "N", hidden])],
        [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    proto = oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])
    x = rng.standard_normal((60, 5, 1, 8)).astype(np.float32)
    report = so.optimize(
        proto, tmp_path / "out.onnx", calibration={"x": x}, max_error=0.02, minimize="bytes",
        benchmark=False,
    ).report  # fmt: skip
    assert [entry.option for entry in report.applied if entry.option] == ["1 direction"]
    assert report.after.cost.parameters == pytest.approx(report.before.cost.parameters / 2)
    assert report.after.file_bytes < 0.65 * report.before.file_bytes
