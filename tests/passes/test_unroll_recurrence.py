from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import onnx
import pytest
from hypothesis import given
from recurrent_models import FUNCTIONS, GATES, Node, model, nodes, samples

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.recurrence.unroll_recurrence import UnrollRecurrence
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import TARGETS, ListedTarget
from structopt_onnx.runtime.session import Session

_SEEDS = st.integers(0, 2**32 - 1)
_RECURRENT = set(GATES)


@pytest.fixture(autouse=True)
def everything_but_recurrence(monkeypatch: pytest.MonkeyPatch):
    """A target that has every operator but the recurrent ones."""
    standard = {schema.name for schema in onnx.defs.get_all_schemas()} - _RECURRENT
    monkeypatch.setitem(TARGETS, "rest", ListedTarget("rest", operators=frozenset(standard)))


def _unrolled(proto: onnx.ModelProto, target: str = "rest", **options: int):
    manager = PassManager(TARGETS[target], check_each_patch=True)
    after = manager.run(load(proto), [UnrollRecurrence(target=target, **options)])
    return to_proto(after), manager.record


def _check(proto: onnx.ModelProto, after: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]):
    onnx.checker.check_model(after, full_check=True)
    original = Session(proto.SerializeToString(), optimize=False)
    rewritten = Session(after.SerializeToString(), optimize=False)
    for sample in feeds:
        wanted, found = original.run(sample), rewritten.run(sample)
        for name, array in wanted.items():
            assert array.shape == found[name].shape
            np.testing.assert_allclose(found[name], array, rtol=2e-5, atol=2e-5)


@given(nodes(), _SEEDS)
def test_the_steps_do_what_the_node_did(node: Node, seed: int):
    rng = np.random.default_rng(seed)
    proto = model(node, rng)
    after, record = _unrolled(proto)
    if node.opset < 10 and "ThresholdedRelu" in node.activations:
        assert [entry.refusal.code for entry in record.refused] == ["activation"]
        return
    assert [entry.step for entry in record.applied] == ["unroll-recurrence"]
    assert not _RECURRENT & {n.op_type for n in after.graph.node}
    _check(proto, after, samples(node, rng))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
@pytest.mark.parametrize("defaults", [True, False])
def test_each_activation_function(name: str, defaults: bool):
    rng = np.random.default_rng(0)
    names = (name, "Tanh", "LeakyRelu", "Sigmoid", name, "Elu")
    node = Node("LSTM", "bidirectional", activations=names, defaults=defaults)
    proto = model(node, rng)
    after, record = _unrolled(proto)
    assert record.applied
    _check(proto, after, samples(node, rng))


@pytest.mark.parametrize("op_type", sorted(GATES))
@pytest.mark.parametrize("target", ["nnapi", "coreml", "qnn"])
def test_every_node_is_one_that_the_target_lists(op_type: str, target: str):
    rng = np.random.default_rng(0)
    node = Node(op_type, "bidirectional", state_h=True, peepholes=op_type == "LSTM", batch=1)
    after, _ = _unrolled(model(node, rng), target)
    held = TARGETS[target]
    assert all(held.supports(n.op_type, 17, None) for n in after.graph.node)


@pytest.mark.parametrize("op_type", sorted(GATES))
def test_nodes_grow_by_the_step_and_weights_are_stored_once(op_type: str):
    rng = np.random.default_rng(0)
    node = Node(op_type, state_h=True, state_c=op_type == "LSTM")
    counts = {}
    for steps in (10, 11, 12):
        proto = model(replace(node, steps=steps), np.random.default_rng(1))
        after, _ = _unrolled(proto)
        counts[steps] = len(after.graph.node)
        floats = [t for t in after.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
        stored = sum(int(np.prod(t.dims)) for t in floats)
        assert stored <= sum(int(np.prod(t.dims)) for t in proto.graph.initializer)
    each = {"RNN": 3, "GRU": 11, "LSTM": 12}[op_type]
    assert counts[11] - counts[10] == counts[12] - counts[11] == each
    del rng


def test_float16_stays_float16():
    rng = np.random.default_rng(0)
    node = Node("GRU", kind=onnx.TensorProto.FLOAT16, state_h=True)
    proto = model(node, rng)
    after, _ = _unrolled(proto)
    original = Session(proto.SerializeToString(), optimize=False)
    rewritten = Session(after.SerializeToString(), optimize=False)
    for sample in samples(node, rng):
        for name, array in original.run(sample).items():
            found = rewritten.run(sample)[name]
            assert found.dtype == np.float16
            np.testing.assert_allclose(found, array, atol=4e-3)


def test_the_cpu_keeps_the_node():
    _, record = _unrolled(model(Node("LSTM"), np.random.default_rng(0)), "cpu")
    assert not record.applied
    assert not record.refused
