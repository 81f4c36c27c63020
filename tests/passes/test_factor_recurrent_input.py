from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import pytest
from hypothesis import given

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.linalg.moments import MomentsAccumulator
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.model.statistic import SequenceStatistic, Statistic
from structopt_onnx.passes.low_rank.factor_recurrent_input import FactorRecurrentInput
from structopt_onnx.passes.low_rank.recurrent_fit import pooled
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from structopt_onnx.rewriting.passes import Choice

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_STEPS, _BATCH, _FEATURES, _HIDDEN = 4, 3, 7, 3
_ARITY = {"RNN": 2, "GRU": 2, "LSTM": 3}


@dataclass(frozen=True)
class Node:
    """One recurrent node and what goes with it."""

    op_type: str
    direction: str
    reset: int = 0
    bias: bool = True
    lengths: bool = False
    states: bool = False
    peepholes: bool = False

    @property
    def directions(self) -> int:
        return 2 if self.direction == "bidirectional" else 1

    @property
    def rows(self) -> int:
        return _GATES[self.op_type] * _HIDDEN


_NODES = st.builds(
    Node,
    op_type=st.sampled_from(sorted(_GATES)),
    direction=st.sampled_from(["forward", "reverse", "bidirectional"]),
    reset=st.integers(0, 1),
    bias=st.booleans(),
    lengths=st.booleans(),
    states=st.booleans(),
    peepholes=st.booleans(),
)
_SEEDS = st.integers(0, 2**32 - 1)


def _model(node: Node, rng: np.random.Generator, *, rank: int | None) -> onnx.ModelProto:
    def draw(*dims: int) -> np.ndarray:
        return rng.standard_normal(dims).astype(np.float32)

    count = node.directions * node.rows
    weight = draw(count, _FEATURES) if rank is None else draw(count, rank) @ draw(rank, _FEATURES)
    weight /= np.sqrt(_FEATURES)
    constants = {
        "W": weight.reshape(node.directions, node.rows, _FEATURES),
        "R": draw(node.directions, node.rows, _HIDDEN) / 2,
    }
    inputs = ["X", "W", "R", "", "", "", "", ""]
    if node.bias:
        constants["B"], inputs[3] = draw(node.directions, 2 * node.rows), "B"
    values = [("X", onnx.TensorProto.FLOAT, ["T", "N", _FEATURES])]
    if node.lengths:
        inputs[4] = "lengths"
        values.append(("lengths", onnx.TensorProto.INT32, ["N"]))
    states = ["h", "c"][: _ARITY[node.op_type] - 1] if node.states else []
    for index, name in enumerate(states):
        inputs[5 + index] = name
        values.append((name, onnx.TensorProto.FLOAT, [node.directions, "N", _HIDDEN]))
    if node.peepholes and node.op_type == "LSTM":
        constants["P"], inputs[7] = draw(node.directions, 3 * _HIDDEN) / 2, "P"
    while not inputs[-1]:
        inputs.pop()
    attributes: dict[str, Any] = {"hidden_size": _HIDDEN, "direction": node.direction}
    if node.op_type == "GRU":
        attributes["linear_before_reset"] = node.reset
    state = [node.directions, "N", _HIDDEN]
    shapes = {"Y": ["T", *state], "Yh": state, "Yc": state}
    outputs = list(shapes)[: _ARITY[node.op_type]]
    graph = oh.make_graph(
        [oh.make_node(node.op_type, inputs, outputs, **attributes)],
        "g",
        [oh.make_tensor_value_info(*value) for value in values],
        [oh.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shapes[n]) for n in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])


def _samples(node: Node, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    made = []
    for _ in range(6):
        x = rng.standard_normal((_STEPS, _BATCH, _FEATURES)) * np.arange(1, _FEATURES + 1) + 0.7
        feeds = {"X": x.astype(np.float32)}
        if node.lengths:
            feeds["lengths"] = rng.integers(1, _STEPS + 1, _BATCH).astype(np.int32)
        if node.states:
            shape = (node.directions, _BATCH, _HIDDEN)
            for name in ["h", "c"][: _ARITY[node.op_type] - 1]:
                feeds[name] = rng.standard_normal(shape).astype(np.float32)
        made.append(feeds)
    return made


def _choice(
    proto: onnx.ModelProto, step: FactorRecurrentInput, samples: list[dict[str, np.ndarray]]
) -> Choice:
    model = load(proto)
    manager = PassManager(CpuTarget(), check_each_patch=True)
    if samples:
        facts = manager.facts(model)
        session = Session(proto.SerializeToString(), optimize=False)
        wanted = tuple(step.needs(facts.scopes[0], facts))
        statistics = gather(model, load_samples(samples, session.inputs), wanted)
        manager = replace(manager, statistics=statistics)
    (choice,) = manager.choices(model, step)
    return choice


def _apply(
    proto: onnx.ModelProto, step: FactorRecurrentInput, choice: Choice, label: str
) -> onnx.ModelProto:
    (option,) = (option for option in choice.options if option.label == label)
    model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
    assert manager.apply_plan(model, [Planned(step, choice, option)])
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    parameters = [
        sum(np.prod(t.dims) for t in p.graph.initializer if t.name[0] in "WB")
        for p in (proto, after)
    ]
    assert parameters[1] - parameters[0] == option.after.parameters - option.before.parameters
    return after


def _outputs(proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
    session = Session(proto.SerializeToString(), optimize=False)
    return [array for feeds in samples for array in session.run(feeds).values()]


def _constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in proto.graph.initializer
    }


@given(_NODES, _SEEDS, st.booleans())
def test_at_full_rank_the_node_does_what_it_did(node, seed, calibrated):
    rng = np.random.default_rng(seed)
    proto, samples = _model(node, rng, rank=2), _samples(node, rng)
    step = FactorRecurrentInput(rank_multiple=1)
    choice = _choice(proto, step, samples if calibrated else [])
    after = _apply(proto, step, choice, "rank 2")
    assert choice.options[1].error < 1e-12
    for one, other in zip(_outputs(proto, samples), _outputs(after, samples), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def _projections(
    node: Node, proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]
) -> np.ndarray:
    """Return what the gates get from the input at every step that counts, [steps, D G H]."""
    held = _constants(proto)
    weight = next(a for name, a in held.items() if name in {"W", "W_out"})
    bias = next((a for n, a in held.items() if n in {"B", "W_bias"}), None)
    rows = []
    for feeds in samples:
        x = feeds["X"].astype(np.float64)
        if node.lengths:
            x = x[np.arange(_STEPS)[:, None] < feeds["lengths"]]
        rows.append(x.reshape(-1, _FEATURES))
    inner = np.concatenate(rows) @ held.get("W_in", np.eye(_FEATURES))
    made = inner @ weight.reshape(-1, weight.shape[2]).T
    return made if bias is None else made + bias[:, : node.rows].reshape(-1)


@given(_NODES, _SEEDS, st.integers(1, 6), st.booleans())
def test_the_predicted_error_is_that_of_the_projection(node, seed, rank, centre):
    rng = np.random.default_rng(seed)
    proto, samples = _model(node, rng, rank=None), _samples(node, rng)
    step = FactorRecurrentInput(rank_multiple=1, centre=centre)
    choice = _choice(proto, step, samples)
    option = choice.options[min(rank, len(choice.options)) - 1]
    was = _projections(node, proto, samples)
    now = _projections(node, _apply(proto, step, choice, option.label), samples)
    measured = ((was - now) ** 2).sum() / ((was - was.mean(axis=0)) ** 2).sum()
    assert measured == pytest.approx(option.error, rel=1e-4, abs=1e-9)
    assert choice.measured_at == "Y"
    assert choice.basis == "calibration"
    errors = [o.error for o in choice.options]
    assert errors == sorted(errors, reverse=True)
    for costs in (o.after for o in choice.options):
        assert costs.parameters < choice.options[0].before.parameters


@pytest.mark.parametrize("bias", [True, False])
def test_centring_is_at_least_as_good(bias: bool):
    rng = np.random.default_rng(3)
    node = Node("LSTM", "bidirectional", bias=bias)
    proto, samples = _model(node, rng, rank=None), _samples(node, rng)
    for feeds in samples:
        feeds["X"] += np.float32(3)
    centred = _choice(proto, FactorRecurrentInput(rank_multiple=1), samples)
    plain = _choice(proto, FactorRecurrentInput(rank_multiple=1, centre=False), samples)
    for one, other in zip(centred.options, plain.options, strict=True):
        assert one.error <= other.error * (1 + 1e-9)
    assert centred.options[0].error < 0.9 * plain.options[0].error


def test_only_valid_steps_are_asked_for():
    rng = np.random.default_rng(0)
    step = FactorRecurrentInput(rank_multiple=1)

    def asked(proto: onnx.ModelProto) -> list[Statistic]:
        facts = PassManager(CpuTarget()).facts(load(proto))
        return list(step.needs(facts.scopes[0], facts))

    proto = _model(Node("LSTM", "forward", lengths=True), rng, rank=None)
    assert asked(proto) == [SequenceStatistic(("X",), 2, "lengths")]
    # A session can hand out neither a constant nor a default that the samples may leave out.
    full = np.full(_BATCH, _STEPS, np.int32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(full, "lengths"))
    assert asked(proto) == [Statistic(("X",), 2)]
    assert asked(_model(Node("LSTM", "forward"), rng, rank=None)) == [Statistic(("X",), 2)]


def test_the_cost_counts_what_is_hoisted():
    rng = np.random.default_rng(0)
    proto = _model(Node("LSTM", "bidirectional"), rng, rank=None)
    for axis, size in enumerate((_STEPS, _BATCH)):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = size
    choice = _choice(proto, FactorRecurrentInput(rank_multiple=2), [])
    option = choice.options[0]
    rows = 2 * 4 * _HIDDEN
    assert option.before.parameters == rows * _FEATURES
    assert option.before.macs == _STEPS * _BATCH * rows * _FEATURES
    assert option.after.parameters == 2 * (rows + _FEATURES)
    assert option.after.macs == _STEPS * _BATCH * option.after.parameters
    assert option.after.bytes == 4 * option.after.parameters
    assert (option.before.nodes, option.after.nodes) == (1, 2)
    assert choice.basis == "weights"
    assert choice.support == 0.0
    assert option.rank == 2
    assert option.error == pytest.approx(1 - sum(choice.spectrum[:2]))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), _SEEDS)
def test_pooled_moments_are_those_of_all_observations(counts, seed):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((count, 3)) + 5 for count in counts]

    def observed(rows: np.ndarray) -> MomentsAccumulator:
        accumulator = MomentsAccumulator(3)
        accumulator.update(rows)
        return accumulator

    found = pooled([None, *(observed(rows).moments() for rows in parts)])
    if not sum(counts):
        assert found is None
        return
    expected = observed(np.concatenate(parts)).moments()
    assert found is not None
    assert found.count == expected.count
    np.testing.assert_allclose(found.mean, expected.mean)
    np.testing.assert_allclose(found.covariance, expected.covariance, atol=1e-12)
