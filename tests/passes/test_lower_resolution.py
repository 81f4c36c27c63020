from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import pytest
from float64_reference import evaluate, geometry
from hypothesis import assume, given, settings

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.convolution.lower_resolution import LowerResolution
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_INPUTS, _OUTPUTS = 4, 6
_NORM = ["one", "nil", "nil", "one"]
_TAILS = {
    "nothing": [],
    "activation": [("Tanh", ["c"], {})],
    "normalized": [
        ("BatchNormalization", ["c", "one", "nil", "nil", "one"], {}),
        ("Relu", [0], {}),
    ],
    "gated": [("Sigmoid", ["c"], {}), ("Mul", ["c", 0], {}), ("Add", [1, "shift"], {})],
    "mixed": [("Conv", ["c", "point"], {}), ("Relu", [0], {}), ("Conv", [1, "point"], {})],
    "less its mean": [("GlobalAveragePool", ["c"], {}), ("Sub", ["c", 0], {})],
    "by its mean": [
        ("GlobalAveragePool", ["c"], {}),
        ("Tanh", ["c"], {}),
        ("Mul", [1, 0], {}),
    ],
    "joined": [("Conv", ["c", "point"], {}), ("Concat", ["c", 0], {"axis": 1})],
}
_EXITS = {  # operator, weights, and an attribute that is two per axis
    "whole": ("Identity", [], ""),
    "mean": ("GlobalAveragePool", [], ""),
    "conv": ("Conv", ["wide"], ""),
    "pool": ("MaxPool", [], "kernel_shape"),
    "every": ("Conv", ["thin"], "strides"),
}


@dataclass(frozen=True)
class Layer:
    """A convolution of `x` that makes `c`, a tail of operators behind it, and exits from that."""

    kernel: tuple[int, ...]
    made: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    strides: tuple[int, ...]
    groups: int
    biased: bool
    tail: str
    exits: tuple[str, ...]
    seed: int

    @property
    def axes(self) -> int:
        return len(self.kernel)

    @property
    def sizes(self) -> tuple[int, ...]:
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        around = [self.pads[a] + self.pads[a + self.axes] for a in range(self.axes)]
        rows = zip(self.made, self.strides, spans, around, strict=True)
        return tuple((m - 1) * s + span - p for m, s, span, p in rows)

    @property
    def steps(self) -> tuple[int, ...]:
        rows = zip(self.made, self.strides, strict=True)
        return tuple(2 if m % 2 == 0 and s == 1 else 1 for m, s in rows)

    def proto(self, *, head: bool = True, tail: bool = True) -> onnx.ModelProto:
        """Write the model, its first convolution alone, or only what follows that."""
        rng = np.random.default_rng(self.seed)
        ones = (1,) * self.axes
        joined = 2 * _OUTPUTS if self.tail == "joined" else _OUTPUTS
        stored = {
            "w": (_OUTPUTS, _INPUTS // self.groups, *self.kernel),
            "b": (_OUTPUTS,),
            "point": (_OUTPUTS, _OUTPUTS, *ones),
            "shift": (_OUTPUTS, *ones),
            "wide": (3, joined, *[3] * self.axes),
            "thin": (3, joined, *ones),
        }
        constants = {n: rng.standard_normal(shape) for n, shape in stored.items()}
        constants |= {"one": np.ones(_OUTPUTS), "nil": np.zeros(_OUTPUTS)}
        make = onnx.helper.make_node
        nodes = []
        if head:
            given = {"pads": self.pads, "dilations": self.dilations, "strides": self.strides}
            inputs = ["x", "w", "b"] if self.biased else ["x", "w"]
            nodes.append(make("Conv", inputs, ["c"], group=self.groups, **given))
        outputs = {} if tail else {"c": _OUTPUTS}
        last = "c"
        for k, (op_type, read, given) in enumerate(_TAILS[self.tail] if tail else []):
            last = f"t{k}"
            names = [f"t{r}" if isinstance(r, int) else r for r in read]
            nodes.append(make(op_type, names, [last], **given))
        for name in self.exits if tail else ():
            op_type, more, attribute = _EXITS[name]
            given = {attribute: [2] * self.axes} if attribute else {}
            nodes.append(make(op_type, [last, *more], [name], **given))
            outputs[name] = 3 if name in {"conv", "every"} else joined
        read = {name for node in nodes for name in node.input}
        info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        first = ("x", _INPUTS, self.sizes) if head else ("c", _OUTPUTS, self.made)
        graph = onnx.helper.make_graph(
            nodes,
            "g",
            [info(first[0], kind, ["N", first[1], *first[2]])],
            [info(n, kind, ["N", c, *[None] * self.axes]) for n, c in outputs.items()],
            [
                onnx.numpy_helper.from_array(a.astype(np.float32), n)
                for n, a in constants.items()
                if n in read
            ],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
        onnx.checker.check_model(model, full_check=True)
        return model

    def samples(self) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed + 1)
        mix = rng.standard_normal((_INPUTS, _INPUTS))
        made = [rng.standard_normal((2, *self.sizes, _INPUTS)) @ mix + 0.3 for _ in range(8)]
        return [{"x": np.moveaxis(array, -1, 1).astype(np.float32)} for array in made]


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    axes = draw(st.integers(1, 2))

    def per_axis(low: int, high: int, count: int = axes) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(count))

    exits = draw(st.lists(st.sampled_from(sorted(_EXITS)), min_size=1, max_size=3, unique=True))
    made = [draw(st.sampled_from([4, 5, 6])) for _ in range(axes)]
    strides = list(per_axis(1, 2))
    made[0], strides[0] = draw(st.sampled_from([4, 6])), 1
    return Layer(
        per_axis(1, 3),
        tuple(made),
        per_axis(0, 1, 2 * axes),
        per_axis(1, 2),
        tuple(strides),
        draw(st.sampled_from([1, 1, 2])),
        draw(st.booleans()),
        draw(st.sampled_from(sorted(_TAILS))),
        tuple(exits),
        draw(st.integers(0, 99)),
    )


def options(proto: onnx.ModelProto, samples: list[dict[str, np.ndarray]]) -> list[Planned]:
    """Return every option about the first convolution, fitted to the samples alone."""
    model, step = load(proto), LowerResolution(unseen=0.0)
    manager = PassManager(CpuTarget())
    facts = manager.facts(model)
    session = Session(proto.SerializeToString(), optimize=False)
    wanted = tuple(step.needs(facts.scopes[0], facts))
    manager.statistics = gather(model, load_samples(samples, session.inputs), wanted)
    choices = [c for c in manager.choices(model, step) if c.site == {"w"}]
    return [Planned(step, choice, option) for choice in choices for option in choice.options]


def lowered(proto: onnx.ModelProto, planned: Planned) -> onnx.ModelProto:
    model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
    assert manager.apply_plan(model, [planned])
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    return after


def patches(layer: Layer, x: np.ndarray, label: str) -> np.ndarray:
    """Return what some taps of each block's window see, [N, blocks..., C, taps]."""
    lines = [[int(n) for n in line.split(":")] for line in label.removeprefix("taps ").split(",")]
    far = 16
    seen = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *[(far, far)] * layer.axes])
    for axis, (start, stop, *every) in enumerate(lines):
        step = layer.steps[axis]
        apart = 1 if step > 1 else layer.dilations[axis]
        taps = np.arange(start, stop, *every) * apart - layer.pads[axis] + far
        blocks = np.arange(layer.made[axis] // step) * step * layer.strides[axis]
        seen = seen.take(blocks[:, None] + taps, axis=2 + 2 * axis)
    axes = range(layer.axes)
    order = (0, *(2 + 2 * a for a in axes), 1, *(3 + 2 * a for a in axes))
    seen = seen.transpose(order)
    return seen.reshape(*seen.shape[: 1 + layer.axes], _INPUTS, -1)


def means(layer: Layer, c: np.ndarray) -> np.ndarray:
    """Return the means of the blocks of [N, C, positions...]."""
    for axis, step in enumerate(layer.steps):
        parts = [c.take(range(k, layer.made[axis], step), axis=2 + axis) for k in range(step)]
        c = np.mean(parts, axis=0)
    return c


def raised(layer: Layer, blocks: np.ndarray) -> np.ndarray:
    for axis, step in enumerate(layer.steps):
        blocks = blocks.repeat(step, axis=2 + axis)
    return blocks


def fitted(layer: Layer, label: str, xs: list[np.ndarray], cs: list[np.ndarray]) -> np.ndarray:
    """Return what least squares by those taps makes of all samples, raised, [N, C, ...]."""
    if label == "mean first":
        return raised(layer, means(layer, np.concatenate(cs)))
    seen = np.concatenate([patches(layer, x, label) for x in xs])
    made = np.moveaxis(np.concatenate([means(layer, c) for c in cs]), 1, -1)
    found = []
    for group in range(layer.groups):
        inputs, outputs = _INPUTS // layer.groups, _OUTPUTS // layer.groups
        rows = seen[..., group * inputs : (group + 1) * inputs, :].reshape(made[..., 0].size, -1)
        aims = made[..., group * outputs : (group + 1) * outputs].reshape(len(rows), -1)
        design = np.hstack([rows, np.ones((len(rows), 1))])
        found.append(design @ np.linalg.lstsq(design, aims, rcond=1e-9)[0])
    blocks = np.concatenate(found, axis=1).reshape(made.shape)
    return raised(layer, np.moveaxis(blocks, -1, 1))


@given(layers(), st.data())
@settings(max_examples=60)
def test_outputs_are_those_of_blocks_by_least_squares(layer: Layer, data: st.DataObject):
    proto, samples = layer.proto(), layer.samples()
    xs = [sample["x"] for sample in samples]
    cs = [evaluate(layer.proto(tail=False), sample)["c"] for sample in samples]
    found = options(proto, samples)
    assume(found)
    planned = data.draw(st.sampled_from(found))
    predicted = fitted(layer, planned.option.label, xs, cs)
    original = np.concatenate(cs)
    mean = np.moveaxis(original, 1, -1).reshape(-1, _OUTPUTS).mean(axis=0)
    spread = original - mean.reshape(1, -1, *[1] * layer.axes)
    error = float(((original - predicted) ** 2).sum() / (spread**2).sum())
    assert planned.option.error == pytest.approx(error, rel=1e-3, abs=1e-6)
    was = Session(proto.SerializeToString(), optimize=False)
    now = Session(lowered(proto, planned).SerializeToString(), optimize=False)
    behind = layer.proto(head=False)
    for sample, blocks in zip(samples, np.split(predicted, len(samples)), strict=True):
        expected = evaluate(behind, {"c": blocks})
        made, before = now.run(sample), was.run(sample)
        for name, array in expected.items():
            assert made[name].shape == before[name].shape
            scale = float(np.abs(array).max(initial=1.0))
            np.testing.assert_allclose(made[name], array, rtol=0, atol=1e-3 * scale)


@given(layers())
@settings(max_examples=30)
def test_the_whole_kernel_makes_the_means_of_blocks(layer: Layer):
    whole = tuple(
        span + 1 if step > 1 else kernel
        for span, step, kernel in zip(
            geometry(layer.sizes, layer.kernel, {"dilations": layer.dilations})[0],
            layer.steps,
            layer.kernel,
            strict=True,
        )
    )
    label = "taps " + ",".join(f"0:{size}" for size in whole)
    proto = layer.proto(tail=False)
    for planned in options(proto, layer.samples()):
        if planned.option.label not in {label, "mean first"}:
            continue
        small = Session(lowered(proto, planned).SerializeToString(), optimize=False)
        rng = np.random.default_rng(layer.seed + 2)
        unseen = {"x": rng.standard_normal((1, _INPUTS, *layer.sizes)).astype(np.float32)}
        exact = raised(layer, means(layer, evaluate(proto, unseen)["c"]))
        np.testing.assert_allclose(small.run(unseen)["c"], exact, rtol=0, atol=1e-2)


@given(layers(), st.data())
@settings(max_examples=20)
def test_options_cost_what_they_say(layer: Layer, data: st.DataObject):
    proto = layer.proto()
    found = options(proto, layer.samples())
    for planned in found and [data.draw(st.sampled_from(found))]:
        option, facts = planned.option, Facts(load(proto))
        before, after = patch_cost(option.patch(facts.scopes[0], facts), facts, CpuTarget())
        assert (before.macs, before.nodes) == (option.before.macs, option.before.nodes)
        assert (after.macs, after.nodes) == (option.after.macs, option.after.nodes)
        saved = option.before.parameters - option.after.parameters
        assert before.parameters - after.parameters == saved


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("tail", sorted(_TAILS))
def test_nothing_is_lost_where_blocks_are_equal(axes: int, tail: str):
    exits = tuple(sorted(_EXITS))
    ones, zeros = (1,) * axes, (0,) * 2 * axes
    layer = Layer(ones, (6,) * axes, zeros, ones, ones, 2, True, tail, exits, 5)
    proto = layer.proto()
    samples = [{"x": raised(layer, means(layer, s["x"]))} for s in layer.samples()]
    (planned,) = options(proto, samples)
    assert planned.option.error < 1e-9
    was = Session(proto.SerializeToString(), optimize=False)
    now = Session(lowered(proto, planned).SerializeToString(), optimize=False)
    for sample in samples:
        made = now.run(sample)
        for name, array in was.run(sample).items():
            scale = float(np.abs(array).max(initial=1.0))
            np.testing.assert_allclose(made[name], array, rtol=0, atol=1e-5 * scale)
