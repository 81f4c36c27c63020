from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser
import pytest
from hypothesis import given, settings

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.model.patch import Names
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.convolution.conv_rows import Layout, rewritten
from structopt_onnx.passes.convolution.conv_site import ConvSite, find_sites
from structopt_onnx.passes.convolution.conv_statistic import statistic_of
from structopt_onnx.passes.low_rank.conv_fit import ConvFit, fit_of
from structopt_onnx.passes.low_rank.conv_forms import channel, spatial, tucker
from structopt_onnx.passes.low_rank.factor_conv import FactorConv
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.passes import Choice
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    import onnx_ir as ir

_INPUTS = 8
_SIZES = (9, 8, 7)


@dataclass(frozen=True)
class Layer:
    """A random convolution behind a Relu; batch and, unless static, spatial sizes are symbolic."""

    op_type: str
    inputs: int
    outputs: int
    kernel: tuple[int, ...]
    attributes: dict[str, object]
    biased: bool
    seed: int
    static: bool = False

    def model(self) -> onnx.ModelProto:
        rng = np.random.default_rng(self.seed)
        groups = int(self.attributes.get("group", 1))
        shape = (self.outputs, self.inputs // groups, *self.kernel)
        if self.op_type == "ConvTranspose":
            shape = (self.inputs, self.outputs // groups, *self.kernel)
        weight = rng.standard_normal(shape).astype(np.float32)
        weight /= np.sqrt(np.prod(shape[1:]))
        constants = {"w": weight}
        if self.biased:
            constants["b"] = rng.standard_normal(self.outputs).astype(np.float32)
        axes = len(self.kernel)
        sizes = _SIZES[:axes] if self.static else [f"D{k}" for k in range(axes)]
        outs = [f"E{k}" for k in range(len(self.kernel))]
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Relu", ["x"], ["h"]),
                onnx.helper.make_node(self.op_type, ["h", *constants], ["y"], **self.attributes),
            ],
            "g",
            [info("x", onnx.TensorProto.FLOAT, ["N", self.inputs, *sizes])],
            [info("y", onnx.TensorProto.FLOAT, ["N", self.outputs, *outs])],
            [onnx.numpy_helper.from_array(a, n) for n, a in constants.items()],
        )
        opsets = [onnx.helper.make_opsetid("", 17)]
        model = onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)
        onnx.checker.check_model(model, full_check=True)
        return model

    def feeds(self, count: int, sizes: tuple[int, ...] = _SIZES) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed + 1)
        mix = rng.standard_normal((self.inputs, self.inputs))
        made = []
        for k in range(count):
            grid = sizes[: len(self.kernel)]
            array = rng.standard_normal((1 + k % 2, *grid, self.inputs)) @ mix + 0.3
            made.append({"x": np.moveaxis(array, -1, 1).astype(np.float32)})
        return made


@st.composite
def layers(draw: st.DrawFn, *, axes: int | None = None, plain: bool = False) -> Layer:
    axes = draw(st.integers(1, 3)) if axes is None else axes
    taps = st.integers(2, 3) if plain else st.integers(1, 3)
    small = st.tuples(*[st.integers(1, 2)] * axes)
    kernel = tuple(draw(taps) for _ in range(axes))
    op_type = "Conv" if plain else draw(st.sampled_from(["Conv", "Conv", "ConvTranspose"]))
    attributes: dict[str, object] = {"strides": draw(small), "dilations": draw(small)}
    modes = ["NOTSET", "NOTSET", "VALID"]
    if op_type == "Conv" and set(attributes["dilations"]) == {1}:
        modes += ["SAME_UPPER", "SAME_LOWER"]
    mode = draw(st.sampled_from(modes))
    if mode == "NOTSET":
        attributes["pads"] = [
            draw(st.integers(0, min(1, kernel[k % axes]))) for k in range(2 * axes)
        ]
    else:
        attributes["auto_pad"] = mode
    if not plain:
        attributes["group"] = draw(st.sampled_from([1, 1, 2]))
    if draw(st.booleans()):
        attributes["kernel_shape"] = kernel
    outputs = draw(st.sampled_from([4, 6, 10]))
    biased, static = draw(st.booleans()), draw(st.booleans())
    seed = draw(st.integers(0, 99))
    return Layer(op_type, _INPUTS, outputs, kernel, attributes, biased, seed, static)


def _site(model: ir.Model) -> tuple[ConvSite, Facts]:
    facts = Facts(model)
    (site,) = find_sites(facts.scopes[0], facts)
    assert isinstance(site, ConvSite)
    return site, facts


def _fit(
    layer: Layer,
    samples: list[dict[str, np.ndarray]] | None,
    *,
    centre: bool = True,
    unseen: float = 0.1,
):
    """Return the fit on samples as the pass makes it, or on the weight alone."""
    model = load(layer.model())
    site, facts = _site(model)
    wanted = statistic_of(site)
    assert wanted is not None
    if samples is not None:
        session = Session(layer.model().SerializeToString(), optimize=False)
        facts.statistics = gather(model, load_samples(samples, session.inputs), [wanted])
    return fit_of(site, facts, wanted, centre=centre, unseen=unseen)


def _apply(layer: Layer, fit: ConvFit, layout: Layout) -> Session:
    """Rewrite the layer in a fresh model and open the result."""
    model = load(layer.model())
    site, facts = _site(model)
    patch = rewritten(site, facts.scopes[0], layout, fit.candidate(layout)[1]())
    patch.check()
    patch.apply(Names(model), pass_name="test", number=1)
    proto = to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [o.name for o in proto.graph.output] == ["y"]
    assert proto.graph.input[0] == layer.model().graph.input[0]
    return Session(proto.SerializeToString(), optimize=False)


def _full_rank(site: ConvSite, fit: ConvFit) -> list[Layout]:
    """Return every scheme that fits the layer, with nothing cut off (but one output: tucker)."""
    groups = site.groups
    found = [channel(site, min(site.outputs // groups, site.inputs // groups * site.taps))]
    if groups == 1 and not site.transposed and site.taps > 1 and fit.serves_inputs:
        found += [tucker(site, site.inputs, site.outputs)]
        found += [tucker(site, site.inputs, site.outputs - 1)]
        if len(site.kernel) == 2:
            rows, columns = site.kernel
            found.append(spatial(site, site.inputs * rows, 0))
            found.append(spatial(site, site.inputs * columns, 1))
    return found


@given(layers(), st.booleans())
def test_every_scheme_at_full_rank_is_the_layer(layer: Layer, calibrated: bool):
    original = Session(layer.model().SerializeToString(), optimize=False)
    fit = _fit(layer, layer.feeds(8) if calibrated else None)
    site, _ = _site(load(layer.model()))
    for layout in _full_rank(site, fit):
        if layout.scheme == "tucker":
            continue
        rewritten = _apply(layer, fit, layout)
        for sizes in (_SIZES,) if layer.static else (_SIZES, (6, 11, 5)):
            for sample in layer.feeds(2, sizes):
                was, now = original.run(sample)["y"], rewritten.run(sample)["y"]
                assert now.shape == was.shape
                scale = max(1.0, float(np.abs(was).max()))
                np.testing.assert_allclose(now, was, rtol=0, atol=1e-5 * scale)


def _some_ranks(site: ConvSite, fit: ConvFit, data: st.DataObject) -> Layout:
    """Draw a layout with something cut off."""
    below = {layout.scheme: layout for layout in _full_rank(site, fit)}
    scheme = data.draw(st.sampled_from(sorted(below)))
    most = [max(1, rank - 1) for rank in below[scheme].ranks]
    ranks = [data.draw(st.integers(1, rank)) for rank in most]
    if scheme in {"channel", "pointwise"}:
        return channel(site, *ranks)
    if scheme == "input":
        return tucker(site, *ranks, site.outputs)
    if scheme == "tucker":
        return tucker(site, *ranks)
    return spatial(site, *ranks, int(scheme == "spatial-transposed"))


@given(layers(), st.booleans(), st.sampled_from([0.0, 0.1, 1.0]), st.data())
def test_the_error_is_the_one_measured_on_the_fit_data(
    layer: Layer, centre: bool, unseen: float, data: st.DataObject
):
    samples = layer.feeds(8)
    fit = _fit(layer, samples, centre=centre, unseen=unseen)
    layout = _some_ranks(_site(load(layer.model()))[0], fit, data)
    original = Session(layer.model().SerializeToString(), optimize=False)
    cut = _apply(layer, fit, layout)

    def rows(session: Session) -> np.ndarray:
        made = [np.moveaxis(session.run(s)["y"], 1, -1) for s in samples]
        return np.concatenate([m.reshape(-1, layer.outputs) for m in made]).astype(np.float64)

    was, now = rows(original), rows(cut)
    # The second moment is that of the product, without the bias.
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in layer.model().graph.initializer}
    origin = was.mean(axis=0) if centre else constants.get("b", np.zeros(layer.outputs))
    measured = float(((was - now) ** 2).sum() / ((was - origin) ** 2).sum())
    assert measured == pytest.approx(fit.candidate(layout)[0], rel=1e-3, abs=1e-9)


@given(layers(plain=True), st.booleans())
@settings(max_examples=20)
def test_what_is_offered_costs_what_it_says(layer: Layer, calibrated: bool):
    model = load(layer.model())
    target = CpuTarget()
    manager = PassManager(target, shapes={})
    samples = layer.feeds(4)
    session = Session(layer.model().SerializeToString(), optimize=False)
    manager.shapes = {
        name: tuple(array.shape)
        for name, array in Session(load(layer.model()), outputs=("h", "y")).run(samples[0]).items()
    }
    step = FactorConv(rank_multiple=1)
    facts = manager.facts(model)
    if calibrated:
        wanted = list(step.needs(facts.scopes[0], facts))
        manager.statistics = gather(model, load_samples(samples, session.inputs), wanted)
    for choice in manager.choices(model, step):
        errors = [option.error for option in choice.options]
        assert errors == sorted(errors)
        assert len({option.label for option in choice.options}) == len(errors) <= 24
        for option in choice.options:
            patch = option.patch(facts.scopes[0], facts)
            before, after = patch_cost(patch, facts, target)
            claimed = option.after.macs - option.before.macs
            assert (after.macs - before.macs) == claimed
            saved = option.before.parameters - option.after.parameters
            assert before.parameters - after.parameters == saved
            assert option.after.nodes == after.nodes
            assert saved > 0 or claimed < 0
            other = [o for o in choice.options if o is not option]
            assert not any(
                o.error <= option.error
                and o.after.parameters <= option.after.parameters
                and o.after.macs <= option.after.macs
                for o in other
            )


def test_what_a_plan_takes_is_applied_once():
    layer = Layer("Conv", 8, 10, (3, 3), {"pads": [1, 1, 1, 1]}, biased=True, seed=1)
    model = load(layer.model())
    manager = PassManager(CpuTarget())
    (choice,) = manager.choices(model, FactorConv(rank_multiple=2))
    assert isinstance(choice, Choice)
    assert choice.basis == "weights"
    plan = [Planned(FactorConv(), choice, option) for option in choice.options]
    done = manager.apply_plan(model, plan)
    assert [planned.option for planned in done] == [choice.options[0]]
    assert {r.refusal.code for r in manager.record.refused} == {"superseded"}


def test_uses_of_one_weight_share_the_factors():
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8,H,W] x, float[N,8,P,Q] z) => (float[N,6,H,W] y, float[N,6,P,Q] u, float[N,6,H,W] v)
    {
      h = Relu(x)
      k = Relu(z)
      y = Conv<pads = [1, 1, 1, 1]>(h, w, b)
      u = Conv<pads = [1, 1, 1, 1]>(k, w, c)
      v = Conv<pads = [1, 1, 1, 1]>(h, w, b)
    }
    """
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    for name, shape in {"w": (6, 8, 3, 3), "b": (6,), "c": (6,)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    samples = [
        {n: rng.standard_normal((1, 8, 7, 5)).astype(np.float32) for n in ("x", "z")}
        for _ in range(9)
    ]
    original = Session(proto.SerializeToString(), optimize=False)
    model = load(proto)
    site, facts = _site(model)
    wanted = statistic_of(site)
    assert wanted is not None
    assert wanted.values == ("h", "k")
    facts.statistics = gather(model, load_samples(samples, original.inputs), [wanted])
    fit = fit_of(site, facts, wanted, centre=True)
    layout = spatial(site, 5, 0)
    error, build = fit.candidate(layout)
    rewritten(site, facts.scopes[0], layout, build()).apply(
        Names(model), pass_name="test", number=1
    )
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    assert sorted(t.name for t in after.graph.initializer) == [
        "w_bias",
        "w_bias_1",
        "w_columns",
        "w_rows",
    ]
    cut = Session(after.SerializeToString(), optimize=False)
    lost = kept = 0.0
    was = {n: np.concatenate([original.run(s)[n] for s in samples]) for n in ("y", "u")}
    now = {n: np.concatenate([cut.run(s)[n] for s in samples]) for n in ("y", "u")}
    biases = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    plain = {"y": was["y"] - biases["b"][:, None, None], "u": was["u"] - biases["c"][:, None, None]}
    mean = np.concatenate([*plain.values()]).mean(axis=(0, 2, 3))[:, None, None]
    for name in ("y", "u"):
        lost += float(((was[name] - now[name]) ** 2).sum())
        kept += float(((plain[name] - mean) ** 2).sum())
    assert lost / kept == pytest.approx(error, rel=1e-3)
