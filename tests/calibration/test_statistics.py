from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import feature_sizes, gather
from structopt_onnx.errors import DataError
from structopt_onnx.model.statistic import (
    BlockStatistic,
    PatchStatistic,
    PatchTargetStatistic,
    SequenceStatistic,
    Statistic,
)
from structopt_onnx.runtime.session import Session

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 3)).astype(np.float32)
X = RNG.normal(size=(30, 4)).astype(np.float32) + 2
H = np.maximum(X @ W, 0).astype(np.float64)


def model_of(text, **weights):
    head = '<ir_version: 9, opset_import: ["": 17]>\n'
    model = ir.from_onnx_text(head + text)
    for name, array in weights.items():
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        for node in model.graph:
            for k, used in enumerate(node.inputs):
                if used is not None and used.name == name:
                    node.replace_input_with(k, value)
        model.graph.register_initializer(value)
    return model


def mlp():
    return model_of(
        """g (float[N, 4] x) => (float[N, 3] y)
        { m = MatMul(x, w) h = Relu(m) y = Neg(h) }""",
        w=W,
    )


def samples_for(model, data):
    return load_samples(data, Session(model).inputs)


def gathered(model, data, *statistics):
    return gather(model, samples_for(model, data), statistics)


def cov(rows):
    return np.cov(rows, rowvar=False, ddof=0)


def test_moments_of_inputs_inner_values_and_outputs():
    wanted = [Statistic((name,), -1) for name in ("x", "h", "y")]
    found = gathered(mlp(), {"x": X}, *wanted)
    assert list(found) == wanted
    for statistic, rows in zip(wanted, (X.astype(np.float64), H, -H), strict=True):
        assert found[statistic].count == 30
        np.testing.assert_allclose(found[statistic].mean, rows.mean(axis=0), atol=1e-5)
        np.testing.assert_allclose(found[statistic].covariance, cov(rows), atol=1e-5)


def test_the_model_is_not_changed():
    model = mlp()
    before = ir.to_proto(model).SerializeToString()
    gathered(model, {"x": X}, Statistic(("h",), -1))
    assert ir.to_proto(model).SerializeToString() == before


def test_pooled_tensors_count_together():
    model = model_of(
        """g (float[N, 4] x) => (float[N, 3] b)
        { a = MatMul(x, w) z = Neg(x) b = MatMul(z, w) }""",
        w=W,
    )
    pooled = Statistic(("a", "b"), 1)
    found = gathered(model, {"x": X}, pooled)[pooled]
    rows = np.concatenate([X @ W, -X @ W]).astype(np.float64)
    assert found.count == 60
    np.testing.assert_allclose(found.covariance, cov(rows), atol=1e-4)
    np.testing.assert_allclose(found.mean, 0, atol=1e-6)


def test_channels_of_a_convolution_pool_positions_of_every_size():
    model = model_of(
        "g (float[N, 2, H, V] x) => (float[N, 3, A, B] y) { c = Conv(x, k) y = Relu(c) }",
        k=RNG.normal(size=(3, 2, 3, 3)).astype(np.float32),
    )
    data = [
        {"x": RNG.normal(size=(n, 2, s, 7)).astype(np.float32)} for n, s in ((1, 5), (2, 8), (1, 3))
    ]
    statistic = Statistic(("c",), 1)
    found = gathered(model, data, statistic)[statistic]
    session = Session(model, outputs=("c",))
    rows = np.concatenate(
        [np.moveaxis(session.run(feed)["c"], 1, -1).reshape(-1, 3) for feed in data]
    ).astype(np.float64)
    assert found.count == len(rows) == (3 + 2 * 6 + 1) * 5
    np.testing.assert_allclose(found.covariance, cov(rows), atol=1e-5)


def test_half_precision_accumulates_in_double_precision():
    model = model_of("g (float16[N, 2] x) => (float16[N, 2] y) { h = Neg(x) y = Neg(h) }")
    x = np.full((4000, 2), 60_000, np.float16)
    x[::2] = 59_968
    statistic = Statistic(("h",), -1)
    found = gathered(model, {"x": x}, statistic)[statistic]
    assert found.mean.tolist() == [-59_984, -59_984]
    np.testing.assert_allclose(found.covariance, 256.0)


def test_sizes_that_are_not_declared_are_observed():
    model = mlp()
    for node in model.graph:
        node.outputs[0].shape = None
    wanted = [Statistic(("x",), -1), Statistic(("m",), 1), Statistic(("h",), 5)]
    found = feature_sizes(model, samples_for(model, {"x": X}), wanted)
    assert found == {wanted[0]: 4, wanted[1]: 3}


def test_values_that_are_not_finite_have_no_moments_and_cost_only_their_own():
    model = model_of("g (float[N, 2] x) => (float[N, 2] y) { l = Log(x) y = Neg(l) }")
    x = np.ones((5, 2), np.float32)
    x[3, 1] = 0
    sick, sound = Statistic(("l",), -1), Statistic(("x",), -1)
    pooled = Statistic(("x", "l"), -1)
    found = gathered(model, {"x": x}, sick, sound, pooled)
    assert list(found) == [sound]
    assert found[sound].count == 5


def test_wrong_tensors_and_axes_are_errors():
    model = model_of("""
        g (float[N, 2] x, bool c) => (float[N, 2] y)
        { h = Neg(x)
          y = If (c) <then_branch = t () => (float[N, 2] a) { a = Neg(h) },
                      else_branch = e () => (float[N, 2] b) { b = Abs(h) }> }""")
    data = {"x": X[:, :2], "c": np.ones(30, bool)}
    for name in ("a", "absent"):
        with pytest.raises(DataError, match=f"tensor '{name}' is not in the model's main graph"):
            gathered(model, data, Statistic((name,), -1))
    with pytest.raises(DataError, match="tensor 'h' of sample 0 has rank 2 and no axis 2"):
        gathered(model, data, Statistic(("h",), 2))
    three = Statistic(("h",), 0)
    sizes = [{"x": np.ones((n, 2), np.float32), "c": np.array(True)} for n in (3, 4)]
    with pytest.raises(DataError, match="has 4 features, 3 elsewhere"):
        gathered(model, sizes, three)


def test_strings_have_no_moments():
    model = model_of("g (string[N] x) => (string[N] y) { y = Identity(x) }")
    with pytest.raises(DataError, match="tensor 'y' of sample 0 holds no real numbers"):
        gathered(model, {"x": np.array(["a", "b"])}, Statistic(("y",), 0))


def test_integers_and_booleans_have():
    model = model_of("g (int64[N, 2] x) => (bool[N, 2] y) <int64 z = {1}> { y = Equal(x, z) }")
    wanted = [Statistic((name,), -1) for name in ("x", "y")]
    found = gathered(model, {"x": np.array([[1, 0], [3, 1]])}, *wanted)
    assert found[wanted[0]].mean.tolist() == [2, 0.5]
    assert found[wanted[1]].mean.tolist() == [0.5, 0.5]


def test_nothing_observed_is_left_out():
    model = model_of("g (float[N, 2] x) => (float[N, 2] y) { h = Neg(x) y = Neg(h) }")
    data = [{"x": np.zeros((0, 2), np.float32)}]
    assert gathered(model, data, Statistic(("h",), -1)) == {}
    assert gathered(model, data) == {}


@pytest.mark.parametrize(
    ("pads", "strides", "dilations"),
    [
        ((0, 0, 0, 0), (1, 1), (1, 1)),
        ((1, 0, 2, 1), (2, 1), (1, 2)),
        ((2, 2, 0, 0), (1, 3), (2, 1)),
    ],
)
def test_patches_times_filters_are_the_convolution(pads, strides, dilations):
    filters = RNG.normal(size=(5, 3, 2, 3)).astype(np.float32)
    attributes = f"pads=[{','.join(map(str, pads))}], strides=[{strides[0]},{strides[1]}], "
    attributes += f"dilations=[{dilations[0]},{dilations[1]}]"
    model = model_of(
        f"g (float[N, 3, 9, 8] x) => (float[N, 5, H, W] y) {{ y = Conv <{attributes}> (x, w) }}",
        w=filters,
    )
    patches = PatchStatistic(("x",), 1, (2, 3), strides, dilations, pads)
    outputs = Statistic(("y",), 1)
    x = RNG.normal(size=(4, 3, 9, 8)).astype(np.float32) + 1
    found = gathered(model, {"x": x}, patches, outputs)
    matrix = filters.reshape(5, -1).astype(np.float64)
    assert found[patches].count == found[outputs].count
    np.testing.assert_allclose(matrix @ found[patches].mean, found[outputs].mean, atol=1e-5)
    expected = matrix @ found[patches].covariance @ matrix.T
    np.testing.assert_allclose(expected, found[outputs].covariance, atol=1e-4)


def test_a_kernel_larger_than_its_input_shows_no_patch():
    statistic = PatchStatistic(("x",), 1, (5,), (1,), (1,), (0, 0))
    assert statistic.rows(np.ones((2, 3, 4)), {}).shape == (0, 15)


def test_patches_lie_beside_what_is_made_of_them():
    model = model_of("""
        g (float[N, 2, L] x) => (float[N, 2, P] y) {
          y = MaxPool<kernel_shape = [3], strides = [2], pads = [1, 0]>(x)
        }""")
    x = RNG.normal(size=(3, 1, 2, 6)).astype(np.float32)
    statistic = PatchTargetStatistic(("x",), 1, (3,), (2,), (1,), (1, 0), "y")
    found = gathered(model, {"x": x}, statistic)[statistic]

    def windows(padding: float) -> np.ndarray:
        padded = np.pad(x[:, 0], [(0, 0), (0, 0), (1, 0)], constant_values=padding)
        return np.stack([padded[..., k : k + 3] for k in (0, 2, 4)]).reshape(9, 2, 3)

    made = windows(-np.inf).max(axis=-1)
    rows = np.concatenate([windows(0.0).reshape(9, 6), made], axis=1)
    assert found.count == 9
    np.testing.assert_allclose(found.covariance, cov(rows), atol=1e-6)


def test_blocks_show_their_means_and_what_differs_within():
    model = model_of("g (float[N, 2, 4, 3] x) => (float[N, 2, 4, 3] y) { y = Neg(x) }")
    x = RNG.normal(size=(3, 5, 2, 4, 3)).astype(np.float32) + 1
    statistic = BlockStatistic(("y",), 1, (2, 1))
    found = gathered(model, {"x": x}, statistic)[statistic]
    upper, lower = -x[..., ::2, :].astype(np.float64), -x[..., 1::2, :].astype(np.float64)
    means = np.moveaxis((upper + lower) / 2, 2, -1).reshape(-1, 2)
    within = (((upper - lower) / 2) ** 2).sum(axis=2).reshape(-1, 1)
    rows = np.concatenate([means, within], axis=1)
    assert found.count == len(rows) == 90
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found.covariance, cov(rows), atol=1e-6)


def test_padded_steps_of_a_sequence_are_left_out():
    model = model_of("""
        g (float[T, B, 2] x, int32[B] n) => (float[T, B, 2] y) { y = Neg(x) }""")
    x = RNG.normal(size=(3, 5, 4, 2)).astype(np.float32)
    lengths = np.array([[5, 2, 0, 1]] * 3, np.int32)
    statistic = SequenceStatistic(("y",), 2, "n")
    found = gathered(model, {"x": x, "n": lengths}, statistic)[statistic]
    rows = np.concatenate([-x[:, :n, k].reshape(-1, 2) for k, n in enumerate(lengths[0])])
    assert found.count == len(rows) == 24
    np.testing.assert_allclose(found.covariance, cov(rows), atol=1e-6)


def test_initializers_that_may_be_overridden_need_no_data():
    model = model_of("g (float[N, 4] x) => (float[N, 3] y) { m = MatMul(x, w) y = Neg(m) }", w=W)
    model.graph.inputs.append(model.graph.initializers["w"])
    session = Session(model)
    statistic = Statistic(("m",), -1)
    for data in ({"x": X}, {"x": X, "w": np.stack([2 * W] * 30)}):
        samples = load_samples(data, session.inputs, optional=session.overridable)
        found = gather(model, samples, [statistic])[statistic]
        scale = 2 if "w" in data else 1
        np.testing.assert_allclose(found.mean, scale * (X @ W).mean(axis=0), rtol=1e-4, atol=1e-5)
