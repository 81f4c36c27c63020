"""What is seen of a layer's output, held against what noise in one feature does to what follows."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx.shape_inference
import pytest

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.low_rank.factor_conv import FactorConv
from structopt_onnx.passes.low_rank.factor_matmul import FactorMatmul
from structopt_onnx.passes.low_rank.seen import seen_scales
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_FEATURES = 6
_SHAPES = {
    "v": (6, 4),
    "vt": (4, 6),
    "k": (4, 6, 1, 1),
    "kg": (4, 3, 1, 1),
    "gamma": (6,),
    "beta": (6,),
    "mean": (6,),
    "s": (6,),
    "t": (6, 1, 1),
    "one": (1,),
}


def _model(body: str, image: bool) -> onnx.ModelProto:
    shape = "N,6,3,3" if image else "N,6"
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[{shape}] y) => (z) {{ {body} }}'
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    rng = np.random.default_rng(5)
    used = {name for node in proto.graph.node for name in node.input}
    for name, dims in _SHAPES.items():
        if name in used:
            array = rng.uniform(0.3, 3, dims).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if "var" in used:
        array = rng.uniform(0.1, 4, 6).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, "var"))
    return onnx.shape_inference.infer_shapes(proto)


@pytest.mark.parametrize(
    ("body", "image"),
    [
        ("z = BatchNormalization(y, gamma, beta, mean, var)", True),
        ("p = BatchNormalization(y, gamma, beta, mean, var) q = Mul(t, p) z = Conv(q, k)", True),
        ("p = Div(y, t) z = Conv<group = 2>(p, kg)", True),
        ("p = Identity(y) z = Conv(p, k)", True),
        ("z = MatMul(y, v)", False),
        ("z = Gemm<transB = 1>(y, vt)", False),
        ("p = Add(y, beta) q = Mul(p, s) r = Mul(q, one) z = MatMul(r, v)", False),
    ],
)
def test_the_gains_are_those_of_noise_in_one_feature(body: str, image: bool):
    proto = _model(body, image)
    session = Session(proto.SerializeToString(), optimize=False)
    facts = Facts(load(proto))
    scales = seen_scales(facts.model.graph.inputs[0], 1 if image else -1, _FEATURES, facts)
    assert scales is not None
    rng = np.random.default_rng(7)
    base = rng.standard_normal((50, 6, 3, 3) if image else (50, 6)).astype(np.float32)
    energy = []
    for feature in range(_FEATURES):
        moved = base.copy()
        moved[:, feature] += 1
        energy.append(np.sum((session.run({"y": moved})["z"] - session.run({"y": base})["z"]) ** 2))
    np.testing.assert_allclose(scales**2 / np.sum(scales**2), energy / np.sum(energy), rtol=1e-3)


@pytest.mark.parametrize(
    ("body", "image"),
    [
        ("z = Relu(y)", False),
        ("z = Softmax(y)", False),
        ("z = MatMul(v, y)", False),
        ("z = Gemm<transA = 1>(y, v)", False),
        ("p = Mul(y, y) z = Identity(p)", False),
        ("z = ConvTranspose(y, kg)", True),
    ],
)
def test_nothing_is_said_where_features_mix_or_count_alike(body: str, image: bool):
    proto = _model(body, image)
    facts = Facts(load(proto))
    value = facts.model.graph.inputs[0]
    assert seen_scales(value, 1 if image else -1, _FEATURES, facts) is None


def test_readers_count_alike_and_an_output_is_one_more():
    one = "p = Mul(y, s) z = MatMul(p, v)"
    facts = Facts(load(_model(one, image=False)))
    alone = seen_scales(facts.model.graph.inputs[0], -1, _FEATURES, facts)
    facts = Facts(load(_model(f"{one} q = Softmax(y)", image=False)))
    shared = seen_scales(facts.model.graph.inputs[0], -1, _FEATURES, facts)
    assert alone is not None
    assert shared is not None
    gains = alone**2 / np.mean(alone**2)
    np.testing.assert_allclose(shared**2, gains + 1, rtol=1e-6)


_CONV = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8,5,5] x) => (float[N,6,5,5] z) {
  h = Relu(x)
  y = OP<ATTRIBUTES>(h, w, b)
  z = BatchNormalization(y, gamma, beta, mean, var)
}
"""
_MATMUL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N,8] x) => (float[N,12] z) {
  y = MatMul(x, w)
  p = Add(y, b)
  z = Mul(p, s)
}
"""


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        (_CONV.replace("OP", "Conv").replace("ATTRIBUTES", "pads = [1, 1, 1, 1]"), (6, 8, 3, 3)),
        (
            _CONV.replace("OP", "Conv").replace("ATTRIBUTES", "pads = [1, 1, 1, 1], group = 2"),
            (6, 4, 3, 3),
        ),
        (
            _CONV.replace("OP", "ConvTranspose").replace("ATTRIBUTES", "pads = [1, 1, 1, 1]"),
            (8, 6, 3, 3),
        ),
        (
            _CONV.replace("OP", "ConvTranspose").replace(
                "ATTRIBUTES", "pads = [1, 1, 1, 1], group = 2"
            ),
            (8, 3, 3, 3),
        ),
        (_MATMUL, (8, 12)),
    ],
)
def test_a_fit_as_seen_does_better_where_it_is_seen(text: str, shape: tuple[int, ...]):
    """Behind a scale per feature the option's error is exactly the one that arrives."""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(11)
    size = 12 if text is _MATMUL else 6
    constants = {
        "w": rng.standard_normal(shape),
        "var": np.full(size, 1.0),
        **{name: rng.uniform(-1, 1, size) for name in ("b", "beta", "mean")},
        **{name: np.geomspace(0.05, 5, size) for name in ("gamma", "s")},
    }
    used = {name for node in proto.graph.node for name in node.input}
    for name, array in constants.items():
        if name in used:
            data = onnx.numpy_helper.from_array(array.astype(np.float32), name)
            proto.graph.initializer.append(data)
    original = Session(proto.SerializeToString(), optimize=False)
    dims = (2, 8) if text is _MATMUL else (1, 8, 5, 5)
    samples = [{"x": rng.standard_normal(dims).astype(np.float32)} for _ in range(40)]
    step = (FactorMatmul if text is _MATMUL else FactorConv)(rank_multiple=1, unseen=0, seen=True)
    manager = PassManager(CpuTarget())
    facts = manager.facts(load(proto))
    wanted = tuple(step.needs(facts.scopes[0], facts))
    manager.statistics = gather(facts.model, load_samples(samples, original.inputs), wanted)
    plain, seen = manager.choices(facts.model, step)
    was = np.concatenate([original.run(sample)["z"] for sample in samples]).astype(np.float64)
    moved = np.moveaxis(was, 1, -1).reshape(-1, size)
    spread = float(np.sum((moved - moved.mean(axis=0)) ** 2))

    def arrives(choice, option) -> float:
        model = load(proto)
        assert PassManager(CpuTarget()).apply_plan(model, [Planned(step, choice, option)])
        cut = Session(to_proto(model).SerializeToString(), optimize=False)
        now = np.concatenate([cut.run(sample)["z"] for sample in samples])
        return float(np.sum((now - was) ** 2)) / spread

    by_label = {option.label: option for option in plain.options}
    compared = 0
    for option in seen.options:
        error = arrives(seen, option)
        assert error == pytest.approx(option.error, rel=2e-3, abs=1e-9)
        twin = by_label.get(option.label.removesuffix(" as seen"))
        if twin is not None and option.label.startswith(("channel", "rank")):
            assert error <= arrives(plain, twin) * (1 + 1e-3)
            compared += 1
    assert compared
