from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from conv_layers import Net
from conv_layers import offered as conv_options
from hypothesis import given, settings

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.errors import UsageError
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import catalogue
from structopt_onnx.passes.sparsity.prune_weights import PruneWeights
from structopt_onnx.rewriting.encodings import encoded_bytes
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_INPUTS, _OUTPUTS = 48, 64


def model(seed: int, *, turned: bool = False, biased: bool = True) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((_INPUTS, _OUTPUTS)).astype(np.float32)
    held = {"w": weight.T.copy() if turned else weight}
    if biased:
        held["b"] = rng.standard_normal(_OUTPUTS).astype(np.float32)
    info = oh.make_tensor_value_info
    graph = oh.make_graph(
        [oh.make_node("Gemm", ["x", *held], ["y"], "n", transB=int(turned))],
        "g",
        [info("x", onnx.TensorProto.FLOAT, ["N", _INPUTS])],
        [info("y", onnx.TensorProto.FLOAT, ["N", _OUTPUTS])],
        [onnx.numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    return oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])


def feeds(seed: int, part: int, count: int = 400) -> dict[str, np.ndarray]:
    """Inputs that depend on each other; the parts of one seed are drawn alike."""
    mixing = np.random.default_rng(seed).standard_normal((_INPUTS, _INPUTS))
    mixing *= np.arange(1, _INPUTS + 1)[:, None] ** -1.0
    rows = np.random.default_rng([seed, part]).standard_normal((count, _INPUTS))
    return {"x": (rows @ mixing + 0.5).astype(np.float32)}


def options(proto: onnx.ModelProto, seed: int | None, step: PruneWeights) -> list[Planned]:
    """Return every option, fitted to samples of a seed or to the weights alone."""
    known, manager = load(proto), PassManager(CpuTarget())
    if seed is not None:
        facts = manager.facts(known)
        inputs = Session(proto.SerializeToString(), optimize=False).inputs
        samples = load_samples([feeds(seed, 0)], inputs)
        manager.statistics = gather(known, samples, list(step.needs(facts.scopes[0], facts)))
    return [Planned(step, c, o) for c in manager.choices(known, step) for o in c.options]


def written(proto: onnx.ModelProto, planned: Planned) -> onnx.ModelProto:
    known = load(proto)
    assert PassManager(CpuTarget(), check_each_patch=True).apply_plan(known, [planned])
    return to_proto(known)


def array(proto: onnx.ModelProto, name: str) -> np.ndarray:
    return next(onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == name)


def error(proto: onnx.ModelProto, other: onnx.ModelProto, seed: int, part: int) -> float:
    """Squared error of the output over its variance."""
    samples = feeds(seed, part)
    was, now = (
        Session(p.SerializeToString(), optimize=False).run(samples)["y"].astype(np.float64)
        for p in (proto, other)
    )
    return float(((was - now) ** 2).sum() / ((was - was.mean(axis=0)) ** 2).sum())


@given(st.integers(0, 99), st.booleans(), st.sampled_from([0.0, 0.01, 0.3]), st.data())
@settings(max_examples=15)
def test_an_option_is_what_it_says(seed, turned, unseen, data):
    proto = model(seed, turned=turned)
    found = options(proto, seed, PruneWeights(unseen=unseen))
    planned = data.draw(st.sampled_from(found))
    sparse = written(proto, planned)
    weight, zeros = array(sparse, "w"), int(planned.option.label.split("%")[0]) / 100
    assert np.count_nonzero(weight) == weight.size - round(zeros * weight.size)
    assert planned.option.after.bytes == encoded_bytes(ir.tensor(weight))
    assert planned.option.before.bytes == weight.nbytes
    assert planned.option.error == pytest.approx(error(proto, sparse, seed, 0), rel=1e-3)


@given(st.integers(0, 99), st.booleans())
@settings(max_examples=10)
def test_more_zeros_are_more_error_and_fewer_bytes(seed, biased):
    found = [p.option for p in options(model(seed, biased=biased), seed, PruneWeights())]
    assert len(found) > 3
    assert [o.error for o in found] == sorted(o.error for o in found)
    assert [-o.after.bytes for o in found] == sorted(-o.after.bytes for o in found)
    assert len({(o.after.parameters, o.after.macs, o.after.nodes) for o in found}) == 1
    assert found[0].after.macs == _INPUTS * _OUTPUTS


def test_the_gate_sees_the_bytes_that_an_option_promises():
    proto = model(0)
    facts = PassManager(CpuTarget()).facts(load(proto))
    for planned in options(proto, 0, PruneWeights()):
        patch = planned.option.patch(facts.scopes[0], facts)
        before, after = patch_cost(patch, facts, CpuTarget())
        promised = planned.option.before.bytes - planned.option.after.bytes
        assert before.bytes - after.bytes == promised
        assert before.seconds == after.seconds


def test_data_halve_the_error_on_samples_not_seen():
    ratios = []
    for seed in range(5):
        proto = model(seed)
        by_data, by_weights = (
            next(p for p in options(proto, known, PruneWeights()) if p.option.label == "65% zeros")
            for known in (seed, None)
        )
        errors = [error(proto, written(proto, p), seed, 1) for p in (by_data, by_weights)]
        ratios.append((errors[0] / errors[1]) ** 0.5)
    assert np.mean(ratios) < 0.5


def test_without_data_the_largest_weights_stay_as_they_are():
    proto = model(3)
    planned = next(p for p in options(proto, None, PruneWeights()) if "50%" in p.option.label)
    sparse = written(proto, planned)
    was, now = array(proto, "w"), array(sparse, "w")
    np.testing.assert_array_equal(now[now != 0], was[now != 0])
    assert np.abs(was[now == 0]).max() < np.abs(now[now != 0]).min()
    np.testing.assert_array_equal(array(sparse, "b"), array(proto, "b"))
    lost = float(
        np.sum(was[now == 0].astype(np.float64) ** 2) / np.sum(was.astype(np.float64) ** 2)
    )
    assert planned.option.error == pytest.approx(lost, rel=1e-6)
    assert planned.choice.basis == "weights"


def test_a_bias_gets_back_what_the_mean_loses():
    proto, seed = model(1), 1
    planned = options(proto, seed, PruneWeights())[-1]
    sparse = written(proto, planned)
    was, now = (Session(p.SerializeToString()).run(feeds(seed, 0))["y"] for p in (proto, sparse))
    np.testing.assert_allclose(now.mean(axis=0), was.mean(axis=0), atol=1e-3)
    assert not np.allclose(array(sparse, "b"), array(proto, "b"), atol=0.1)


def test_a_layer_that_makes_the_same_of_everything_goes_by_its_weights():
    proto = model(2)
    known, manager, step = load(proto), PassManager(CpuTarget()), PruneWeights()
    facts = manager.facts(known)
    inputs = Session(proto.SerializeToString()).inputs
    still = load_samples([{"x": np.ones((5, _INPUTS), np.float32)}] * 3, inputs)
    manager.statistics = gather(known, still, list(step.needs(facts.scopes[0], facts)))
    (choice,) = manager.choices(known, step)
    assert choice.basis == "weights"
    assert [o.error for o in choice.options] == [
        p.option.error for p in options(proto, None, PruneWeights())
    ]


def test_filters_that_see_too_much_go_by_their_weights(monkeypatch):
    net = Net((16, 8, 3, 3), {"pads": [1, 1, 1, 1]}, biased=True, seed=0, static=True)
    assert conv_options(net, PruneWeights(), calibrated=True)[0].choice.basis == "calibration"
    monkeypatch.setattr("structopt_onnx.passes.sparsity.prune_weights.LARGEST_PATCH", 71)
    assert conv_options(net, PruneWeights(), calibrated=True)[0].choice.basis == "weights"


def test_a_pattern_is_read_from_pipeline_text():
    (step,) = parse_pipeline("prune-weights{pattern=4:8}", catalogue())
    assert step == PruneWeights(pattern="4:8")
    (planned,) = options(model(0), 0, step)
    weight = array(written(model(0), planned), "w").T
    assert (np.count_nonzero(weight.reshape(-1, 8), axis=1) == 4).all()
    with pytest.raises(UsageError, match="'prune-weights': a pattern is two numbers"):
        parse_pipeline("prune-weights{pattern=half}", catalogue())


def test_a_weight_that_was_changed_is_not_overwritten():
    proto = model(0)
    planned = options(proto, 0, PruneWeights())[0]
    known = load(proto)
    weight = known.graph.initializers["w"]
    changed = load(written(proto, options(proto, 0, PruneWeights())[1]))
    weight.const_value = changed.graph.initializers["w"].const_value
    manager = PassManager(CpuTarget())
    assert not manager.apply_plan(known, [planned])
    assert [r.refusal.code for r in manager.record.refused] == ["superseded"]
