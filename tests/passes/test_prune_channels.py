from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from cases import read_case

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.sparsity.prune_channels import PruneChannels
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes

_CASES = [
    "gemm_relu_gemm",
    "matmul_bias_gelu_matmul_bias",
    "convolutions_and_a_pool",
    "scales_and_slopes_of_channels",
    "weights_on_the_left",
]


def _model(name: str, request: pytest.FixtureRequest) -> onnx.ModelProto:
    return read_case(request.path.parent / "prune-channels" / f"{name}.onnxtxt").model()


def _feeds(session: Session, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    (info,) = session.inputs
    dims = [d if isinstance(d, int) else 6 for d in info.shape]
    return {info.name: rng.standard_normal(dims).astype(np.float32)}


def _planned(proto: onnx.ModelProto, step: PruneChannels) -> tuple[PassManager, list[Planned]]:
    session = Session(proto.SerializeToString(), optimize=False)
    samples = [_feeds(session, seed) for seed in range(30)]
    model = load(proto)
    manager = PassManager(CpuTarget(), shapes=observed_shapes(model, samples[0]))
    facts = manager.facts(model)
    wanted = list(step.needs(facts.scopes[0], facts))
    manager.statistics = gather(model, load_samples(samples, session.inputs), wanted)
    return manager, [Planned(step, c, o) for c in manager.choices(model, step) for o in c.options]


@pytest.mark.parametrize("name", _CASES)
def test_options_cost_what_they_say(name, request):
    proto = _model(name, request)
    manager, found = _planned(proto, PruneChannels(multiple=4))
    assert [p.option.label for p in found] == [f"{k} of 16 channels" for k in (12, 8, 4)]
    assert [p.option.error for p in found] == sorted(p.option.error for p in found)
    facts = manager.facts(load(proto))
    for planned in found:
        option = planned.option
        patch = option.patch(facts.scopes[0], facts)
        before, after = patch_cost(patch, facts, CpuTarget())
        assert before.macs - after.macs == option.before.macs - option.after.macs > 0
        saved = option.before.parameters - option.after.parameters
        assert before.parameters - after.parameters == saved > 0
        assert before.nodes == after.nodes == option.after.nodes


@pytest.mark.parametrize("name", _CASES)
def test_what_no_channel_adds_is_lost_without_error(name, request):
    proto = _model(name, request)
    doubled = _with_channels_twice(proto)
    manager, found = _planned(doubled, PruneChannels(multiple=16, unseen=0))
    (planned,) = found
    assert planned.option.label == "16 of 32 channels"
    assert planned.option.error < 1e-6
    model = load(doubled)
    assert manager.apply_plan(model, [planned])
    small, session = (
        Session(p.SerializeToString(), optimize=False) for p in (to_proto(model), doubled)
    )
    feeds = _feeds(session, 99)
    was, now = session.run(feeds)["y"], small.run(feeds)["y"]
    np.testing.assert_allclose(now, was, rtol=0, atol=2e-3 * np.abs(was).max())


def _with_channels_twice(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Repeat every axis of 16, which are channels, in an order of its own."""
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        for axis, size in enumerate(array.shape):
            if size == 16:
                array = np.concatenate([array, np.flip(array, axis)], axis)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_the_target_says_how_many_channels_are_worth_it(request):
    proto = _model("gemm_relu_gemm", request)
    _, found = _planned(proto, PruneChannels())
    assert [p.option.label.split()[0] for p in found] == ["12", "8", "4"]
    _, found = _planned(_model("convolutions_and_a_pool", request), PruneChannels())
    assert [p.option.label.split()[0] for p in found] == ["12", "8", "4"]
