from __future__ import annotations

from dataclasses import dataclass

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import pytest
from hypothesis import given, settings

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.low_rank.factor_matmul import FactorMatmul
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_RANK, _INPUTS, _ROWS = 3, 9, 5


@dataclass(frozen=True)
class Product:
    """Products of one input with constants of low rank, and whatever may go with them."""

    op_type: str
    left: bool
    turned: bool
    data_turned: bool
    alpha: float
    bias: bool
    batch: tuple[int, ...]
    outputs: tuple[int, ...]

    def model(self, seed: int) -> onnx.ModelProto:
        rng = np.random.default_rng(seed)
        gemm = self.op_type == "Gemm"
        turned, data_turned = gemm and self.turned, gemm and self.data_turned
        batch = () if gemm else self.batch
        nodes, held, made = [], {}, []
        for k, size in enumerate(self.outputs):
            weight = rng.standard_normal((_INPUTS, _RANK)) @ rng.standard_normal((_RANK, size))
            bias = rng.standard_normal(size)
            if self.left:
                weight, bias = weight.T, bias[:, None]
            held[f"w{k}"] = weight.T if turned else weight
            operands = [f"w{k}", "x"] if self.left else ["x", f"w{k}"]
            if self.bias:
                held[f"b{k}"] = bias
            if gemm:
                flags = {"transA": data_turned, "transB": turned}
                if self.left:
                    flags = {"transA": turned, "transB": data_turned}
                operands += [f"b{k}"] * self.bias
                flags = {name: int(flag) for name, flag in flags.items()}
                nodes.append(oh.make_node("Gemm", operands, [f"y{k}"], alpha=self.alpha, **flags))
            else:
                product = f"p{k}" if self.bias else f"y{k}"
                nodes.append(oh.make_node("MatMul", operands, [product]))
                if self.bias:
                    nodes.append(oh.make_node("Add", [product, f"b{k}"], [f"y{k}"]))
            shape = [*batch, size, "T"] if self.left else [*batch, "T", size]
            made.append(oh.make_tensor_value_info(f"y{k}", onnx.TensorProto.FLOAT, shape))
        data = [_INPUTS, "T"] if self.left != data_turned else ["T", _INPUTS]
        graph = oh.make_graph(
            nodes,
            "g",
            [oh.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [*batch, *data])],
            made,
            [onnx.numpy_helper.from_array(a.astype(np.float32), n) for n, a in held.items()],
        )
        model = oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])
        onnx.checker.check_model(model, full_check=True)
        return model

    def samples(self, seed: int) -> list[dict[str, np.ndarray]]:
        rng = np.random.default_rng(seed + 1)
        gemm = self.op_type == "Gemm"
        features_first = self.left != (gemm and self.data_turned)
        shape = (_INPUTS, _ROWS) if features_first else (_ROWS, _INPUTS)
        shape = shape if gemm else (*self.batch, *shape)
        return [{"x": (rng.standard_normal(shape) + 0.5).astype(np.float32)} for _ in range(6)]


_PRODUCTS = st.builds(
    Product,
    op_type=st.sampled_from(["Gemm", "MatMul"]),
    left=st.booleans(),
    turned=st.booleans(),
    data_turned=st.booleans(),
    alpha=st.sampled_from([1.0, 0.5, -2.0]),
    bias=st.booleans(),
    batch=st.sampled_from([(), (2,), (2, 3)]),
    outputs=st.lists(st.sampled_from([7, 8, 12]), min_size=1, max_size=3).map(tuple),
)


@settings(max_examples=40)
@given(_PRODUCTS, st.integers(0, 99), st.booleans(), st.sampled_from([0.0, 0.2]))
def test_at_full_rank_every_product_is_what_it_was(
    product: Product, seed: int, calibrated: bool, unseen: float
):
    proto, samples = product.model(seed), product.samples(seed)
    original = Session(proto.SerializeToString(), optimize=False)
    step = FactorMatmul(rank_multiple=1, unseen=unseen)
    manager = PassManager(CpuTarget(), check_each_patch=True)
    model = load(proto)
    manager.shapes = {name: a.shape for name, a in samples[0].items()}
    names = [v.name for n in model.graph for v in n.outputs]
    observed = Session(load(proto), outputs=tuple(names), optimize=False)
    manager.shapes |= {name: a.shape for name, a in observed.run(samples[0]).items()}
    facts = manager.facts(model)
    if calibrated:
        wanted = tuple(step.needs(facts.scopes[0], facts))
        manager.statistics = gather(model, load_samples(samples, original.inputs), wanted)
    choices = manager.choices(model, step)
    together = [choice for choice in choices if len(choice.site) > 1]
    count = len(product.outputs)
    assert len(together) == (count > 1 and not product.left and _shares(product))
    for choice in choices:
        full = _RANK * len(choice.site)
        options = {option.label.split()[-1]: option for option in choice.options}
        if str(full) not in options:
            continue
        option = options[str(full)]
        assert option.error == pytest.approx(0, abs=1e-9)
        patch = option.patch(facts.scopes[0], manager.facts(model))
        before, after = patch_cost(patch, manager.facts(model), CpuTarget())
        # A Gemm without C is given one, for what the mean of the product loses.
        added = sum(product.outputs) if calibrated and product.op_type == "Gemm" else 0
        grown = option.after.parameters - option.before.parameters
        assert 0 <= after.parameters - before.parameters - grown <= added * (not product.bias)
        assert after.macs - before.macs == option.after.macs - option.before.macs
        rewritten = load(proto)
        assert PassManager(CpuTarget()).apply_plan(rewritten, [Planned(step, choice, option)])
        after = Session(to_proto(rewritten).SerializeToString(), optimize=False)
        for sample in samples:
            now = after.run(sample)
            for name, array in original.run(sample).items():
                scale = max(1.0, float(np.abs(array).max()))
                np.testing.assert_allclose(now[name], array, rtol=0, atol=1e-5 * scale)


def _shares(product: Product) -> bool:
    return product.op_type == "MatMul" or not product.data_turned


def test_a_layer_too_narrow_for_four_ranks_gets_ranks_between_the_multiples():
    product = Product("MatMul", False, False, False, 1.0, False, (), (12,))
    model = load(product.model(0))
    (choice,) = PassManager(CpuTarget()).choices(model, FactorMatmul())
    assert [option.label for option in choice.options] == ["rank 2", "rank 4"]


@pytest.mark.parametrize(
    "text",
    [
        "y = Gemm (x, w)",
        "y = Gemm (x, w, b)",
        "y = Gemm (x, w, one)",
        "t = Gemm (x, w, b)\n y = Mul (t, b)",
        "t = MatMul (x, w)\n y = Add (t, one)",
        "s = MatMul (x, w)\n t = Add (s, b)\n y = Mul (t, b)",
        "y = MatMul (x, w)",
        "s = Gemm (x, w)\n t = Gemm (x, v)\n y = Add (s, t)",
    ],
)
def test_what_a_bias_takes_is_counted(text):
    head = '<ir_version: 8, opset_import: ["" : 17]> g (float[n, 24] x) => (float[n, 24] y)'
    proto = onnx.parser.parse_model(f"{head} {{ {text} }}")
    rng = np.random.default_rng(0)
    for name, shape in {"w": (24, 24), "v": (24, 24), "b": (24,), "one": (1,)}.items():
        if any(name in node.input for node in proto.graph.node):
            array = rng.normal(size=shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    feeds = [{"x": (2 + rng.normal(size=(200, 24))).astype(np.float32)}]
    step = FactorMatmul(rank_multiple=4)
    model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
    facts = manager.facts(model)
    session = Session(proto.SerializeToString(), optimize=False)
    wanted = tuple(step.needs(facts.scopes[0], facts))
    manager.statistics = gather(model, load_samples(feeds, session.inputs), wanted)
    choices = manager.choices(model, step)
    for choice in choices:
        option = choice.options[0]
        changed = model.clone()
        fresh = PassManager(CpuTarget(), check_each_patch=True)
        assert fresh.apply_plan(changed, [Planned(step, choice, option)])
        sizes = [
            sum(v.const_value.size for v in m.graph.initializers.values()) for m in (model, changed)
        ]
        assert option.after.parameters - option.before.parameters == sizes[1] - sizes[0]
    joint = [c for c in choices if c.options[0].label.startswith("joint")]
    assert (len(choices) > 0, len(joint)) == (True, int("v" in text))
