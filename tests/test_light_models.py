"""The networks that the onnx package carries, as they are and with weights that tell them apart.

Their weights are made by ConstantOfShape, which every pass has to leave unwritten; and since all
of them are equal, a permuted channel would not show. So each is also run on random weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.backend.test
import onnx.helper
import onnx.numpy_helper
import pytest

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import OWN
from structopt_onnx.rewriting.cost import graph_cost
from structopt_onnx.rewriting.gates import MustPay
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
_EXACT = tuple(step() for step in OWN if step.exactness is not Exactness.LOSSY)
# Larger weights (of the last layers of vgg19) stay equal: they take gigabytes and time.
_MOST_ELEMENTS = 3_000_000


def _light(name: str) -> onnx.ModelProto:
    return onnx.load(_LIGHT / f"light_{name}.onnx")


def _randomized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Put random initializers in the place of what ConstantOfShape makes."""
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    variances = {n.input[4] for n in proto.graph.node if n.op_type == "BatchNormalization"}
    rng = np.random.default_rng(0)
    kept = []
    for node in proto.graph.node:
        dims = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if dims is None or int(np.prod(dims)) > _MOST_ELEMENTS:
            kept.append(node)
            continue
        (name,) = node.output
        array = rng.standard_normal(dims) * np.sqrt(2 / max(1, int(np.prod(dims[1:]))))
        if len(dims) == 1:  # biases and statistics: around 0, or around 1 where it must be positive
            array = 0.1 * rng.standard_normal(dims)
            array = 1 + np.abs(array) if name in variances else array + 0.5
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        proto.graph.initializer.append(tensor)
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, tensor.dims)
        )
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return proto


def _optimized(proto: onnx.ModelProto):
    model = load(proto)
    before = graph_cost(model, Facts(model))
    manager = PassManager(CpuTarget(), (MustPay(CpuTarget()),))
    model = manager.run(model, _EXACT)
    return to_proto(model), manager, before, graph_cost(model, Facts(model))


def _assert_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    original = Session(before.SerializeToString(), optimize=False)
    (info,) = original.inputs
    x = np.random.default_rng(1).standard_normal(info.shape).astype(np.float32)
    expected = original.run({info.name: x})
    found = Session(after.SerializeToString(), optimize=False).run({info.name: x})
    for name, array in expected.items():
        scale = float(np.abs(array).max())
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5 * scale)


_QUICK = ("densenet121", "shufflenet", "squeezenet")
_NAMES = [*_QUICK, "inception_v1", "inception_v2", "resnet50", "vgg19"]


def _skip_the_slow(name: str, config: pytest.Config) -> None:
    if name not in _QUICK and not config.getoption("--all-foreign-models"):
        pytest.skip("takes long; run by --all-foreign-models")


@pytest.mark.parametrize("name", _NAMES)
def test_never_more_products_and_no_weight_is_written_out(name: str, pytestconfig: pytest.Config):
    _skip_the_slow(name, pytestconfig)
    before = _light(name)
    after, manager, cost, becomes = _optimized(before)
    assert 0 < becomes.macs <= cost.macs
    assert becomes.bytes <= cost.bytes
    assert len(after.SerializeToString()) <= len(before.SerializeToString())
    if name == "densenet121":
        swapped = [e for e in manager.record.applied if e.step == "pool-before-conv"]
        assert len(swapped) == 3, "every transition"
        assert becomes.macs < 0.925 * cost.macs
    _assert_same(before, after)


@pytest.mark.parametrize("name", _NAMES)
def test_random_weights_give_the_same_outputs(name: str, pytestconfig: pytest.Config):
    _skip_the_slow(name, pytestconfig)
    before = _randomized(_light(name))
    after, _, cost, becomes = _optimized(before)
    assert 0 < becomes.macs <= cost.macs
    assert len(after.graph.node) <= len(before.graph.node)
    _assert_same(before, after)
