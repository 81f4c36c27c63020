"""Random convolutions with sample inputs, for tests of passes that fit them to data."""

from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.passes import Choice, Pass
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes

_SIZES = (9, 8, 7)
_SAMPLES = 6


@dataclass(frozen=True)
class Net:
    """A Relu, a convolution and what follows it; ``x`` goes in, ``y`` comes out.

    Parameters
    ----------
    shape
        Of the convolution's weight.
    attributes
        Of the convolution.
    biased
        Whether it has a bias.
    after
        Operators behind it, each with its attributes.
    taps
        Those that are not zero.
    ahead
        Whether a convolution that keeps the size comes before the Relu.
    seed
        Of weight, bias and samples.
    static
        Whether the sizes are known.
    """

    shape: tuple[int, ...]
    attributes: dict[str, object]
    biased: bool
    seed: int
    static: bool
    after: tuple[tuple[str, dict[str, object]], ...] = ()
    taps: tuple[slice, ...] = ()
    ahead: bool = False

    @property
    def axes(self) -> int:
        return len(self.shape) - 2

    @property
    def weight(self) -> np.ndarray:
        whole = np.random.default_rng(self.seed + 2).standard_normal(self.shape)
        weight = np.zeros_like(whole)
        at = (slice(None), slice(None), *self.taps)
        weight[at] = whole[at]
        return weight.astype(np.float32)

    @property
    def inputs(self) -> int:
        return self.shape[1] * int(str(self.attributes.get("group", 1)))

    def model(self) -> onnx.ModelProto:
        rng = np.random.default_rng(self.seed)
        constants = {"w": self.weight}
        if self.biased:
            constants["b"] = rng.standard_normal(self.shape[0]).astype(np.float32)
        first = []
        given = list(constants)
        if self.ahead:
            shape = (self.inputs, self.inputs, *[3] * self.axes)
            constants["v"] = (rng.standard_normal(shape) / 3**self.axes).astype(np.float32)
            pads = {"pads": [1] * 2 * self.axes}
            first = [onnx.helper.make_node("Conv", ["x", "v"], ["a"], **pads)]
        nodes = [
            *first,
            onnx.helper.make_node("Relu", ["a" if first else "x"], ["h"]),
            onnx.helper.make_node("Conv", ["h", *given], ["c0"], **self.attributes),
            *(
                onnx.helper.make_node(op_type, [f"c{k}"], [f"c{k + 1}"], **attributes)
                for k, (op_type, attributes) in enumerate(self.after)
            ),
        ]
        nodes[-1].output[0] = "y"
        sizes = _SIZES[: self.axes] if self.static else [f"D{k}" for k in range(self.axes)]
        outs = [f"E{k}" for k in range(self.axes)]
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            nodes,
            "g",
            [info("x", onnx.TensorProto.FLOAT, ["N", self.inputs, *sizes])],
            [info("y", onnx.TensorProto.FLOAT, ["N", self.shape[0], *outs])],
            [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
        onnx.checker.check_model(model, full_check=True)
        return model

    def session(self) -> Session:
        return Session(self.model().SerializeToString(), optimize=False)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return observed_shapes(load(self.model()), self.samples()[0])

    def samples(self, sizes: tuple[int, ...] = _SIZES) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed + 1)
        mix = rng.standard_normal((self.inputs, self.inputs))
        made = []
        for k in range(_SAMPLES):
            array = rng.standard_normal((1 + k % 2, *sizes[: self.axes], self.inputs)) @ mix + 0.3
            made.append({"x": np.moveaxis(array, -1, 1).astype(np.float32)})
        return made


@st.composite
def nets(draw: st.DrawFn, *, least_taps: int = 1) -> Net:
    axes = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 4 if axes < 3 else 3)) for _ in range(axes)]
    kernel[0] = max(kernel[0], least_taps)
    small = st.tuples(*[st.integers(1, 2)] * axes)
    attributes: dict[str, object] = {"strides": draw(small), "dilations": draw(small)}
    static = draw(st.booleans())
    if draw(st.integers(0, 3)) == 0 and (static or set(draw(small)) == {1}):
        attributes["dilations"] = (1,) * axes  # all that the runtime pads by itself
        attributes["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        if not static:
            attributes["strides"] = (1,) * axes
    else:
        attributes["pads"] = [draw(st.integers(0, min(2, k))) for k in (*kernel, *kernel)]
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    inputs = 4
    outputs = draw(st.sampled_from([4, 8]))
    attributes["group"] = groups
    seed = draw(st.integers(0, 99))
    shape = (outputs, inputs // groups, *kernel)
    return Net(shape, attributes, draw(st.booleans()), seed, static)


def offered(net: Net, step: Pass, *, calibrated: bool) -> list[Planned]:
    """Return every option of a pass, fitted to the net's samples or to the weights alone."""
    model = load(net.model())
    samples = net.samples()
    manager = PassManager(CpuTarget(), shapes=net.shapes())
    if calibrated:
        facts = manager.facts(model)
        wanted = list(step.needs(facts.scopes[0], facts))
        manager.statistics = gather(model, load_samples(samples, net.session().inputs), wanted)
    return [
        Planned(step, choice, option)
        for choice in manager.choices(model, step)
        for option in choice.options
        if isinstance(choice, Choice)
    ]


def rewritten(net: Net, planned: Planned) -> onnx.ModelProto:
    """Apply one option to a fresh model."""
    model = load(net.model())
    manager = PassManager(CpuTarget(), check_each_patch=True)
    assert manager.apply_plan(model, [planned])
    proto = to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.graph.input[0] == net.model().graph.input[0]
    assert [output.name for output in proto.graph.output] == ["y"]
    return proto


def measured_error(net: Net, planned: Planned) -> float:
    """Return the squared error of ``y`` on the samples, relative to its variance per channel."""
    small = Session(rewritten(net, planned).SerializeToString(), optimize=False)

    def rows(session: Session) -> np.ndarray:
        made = [np.moveaxis(session.run(sample)["y"], 1, -1) for sample in net.samples()]
        return np.concatenate([m.reshape(-1, m.shape[-1]) for m in made]).astype(np.float64)

    one, other = rows(net.session()), rows(small)
    return float(((one - other) ** 2).sum() / ((one - one.mean(axis=0)) ** 2).sum())
