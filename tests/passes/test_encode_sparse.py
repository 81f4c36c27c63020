from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so
import structopt_onnx.runtime
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save, to_proto
from structopt_onnx.passes.sparsity.decode_sparse import DecodeSparse
from structopt_onnx.passes.sparsity.encode_sparse import EncodeSparse
from structopt_onnx.rewriting.encodings import DECODED_TYPES, encodings
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import TARGETS

if TYPE_CHECKING:
    from pathlib import Path

FORMS = ("initializer", "bitmask", "delta")


def pruned(shape, density, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape) * 100
    return np.where(rng.random(shape) < density, values, 0).astype(dtype)


def reader(weight: np.ndarray, place: str = "main", *, opset: int = 17) -> onnx.ModelProto:
    """A model whose output is the weight, row by row: any type, no arithmetic."""
    tensor = ir.serde.serialize_tensor(ir.tensor(weight, name="w"))
    info = helper.make_tensor_value_info
    rows, kind = info("rows", TensorProto.INT64, ["N"]), tensor.data_type
    shape = [f"d{axis}" for axis in range(weight.ndim)]
    if place == "main":
        nodes = [helper.make_node("Gather", ["w", "rows"], ["y"], name="read")]
    else:
        read = helper.make_node("Gather", ["w", "rows"], ["p"], name="read")
        same = helper.make_node("Identity", ["w"], ["q"])
        branches = [
            helper.make_graph([node], name, [], [info(node.output[0], kind, shape)])
            for name, node in (("then", read), ("else", same))
        ]
        if place == "inside":
            for branch in branches:
                branch.initializer.append(tensor)
        nodes = [helper.make_node("If", ["c"], ["y"])]
        nodes[0].attribute.append(helper.make_attribute("then_branch", branches[0]))
        nodes[0].attribute.append(helper.make_attribute("else_branch", branches[1]))
    inputs = [rows] if place == "main" else [info("c", TensorProto.BOOL, []), rows]
    graph = helper.make_graph(nodes, "g", inputs, [info("y", kind, shape)])
    if place != "inside":
        graph.initializer.append(tensor)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def encoded(proto: onnx.ModelProto, sparse_format: str) -> tuple[onnx.ModelProto, int]:
    manager = PassManager(TARGETS["cpu"], check_each_patch=True)
    model = manager.run(load(proto), [EncodeSparse(sparse_format)])
    return to_proto(model), len(manager.record.applied)


def outputs(proto: onnx.ModelProto, rows: int, optimized: Path | None = None) -> bytes:
    import onnxruntime  # noqa: PLC0415 - after structopt_onnx.runtime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feeds = {"rows": np.arange(rows), "c": np.array(True)}
    return session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})[0].tobytes()


def operators(graph: onnx.GraphProto) -> list[str]:
    """List the operators of a graph and of those in it."""
    inner = [operators(a.g) for n in graph.node for a in n.attribute if a.HasField("g")]
    return sum(inner, [node.op_type for node in graph.node])


class TestOnnxruntime:
    @pytest.mark.parametrize("form", ["bitmask", "delta"])
    @pytest.mark.parametrize("dtype", sorted(DECODED_TYPES, key=str), ids=lambda d: d.name)
    @pytest.mark.parametrize("opset", [11, 13, 23])
    def test_it_decodes_every_type_while_it_loads(self, form, dtype, opset, tmp_path):
        weight = np.abs(pruned((97, 101), 0.05)).astype(dtype.numpy())
        proto = reader(weight, opset=opset)
        after, applied = encoded(proto, form)
        assert applied == 1
        assert {"BitShift", "ScatterElements"} & set(operators(after.graph))
        assert outputs(after, 97, tmp_path / "o.onnx") == outputs(proto, 97) == weight.tobytes()
        assert operators(onnx.load(tmp_path / "o.onnx").graph) == ["Gather"]

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("place", ["inside", "captured"])
    def test_nothing_is_decoded_in_branches(self, form, place, tmp_path):
        weight = pruned((97, 101), 0.05)
        proto = reader(weight, place)
        after, applied = encoded(proto, form)
        assert applied == (2 if place == "inside" else 1)
        assert outputs(after, 97, tmp_path / "o.onnx") == weight.tobytes()
        left = set(operators(onnx.load(tmp_path / "o.onnx").graph))
        assert left <= {"If", "Gather", "Identity"}

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("inside", [True, False])
    def test_nothing_is_decoded_in_scans(self, form, inside, tmp_path):
        weight = pruned((97, 101), 0.05)
        tensor = numpy_helper.from_array(weight, "w")
        info = helper.make_tensor_value_info
        read = helper.make_node("Gather", ["w", "row"], ["p"])
        body = helper.make_graph(
            [read], "body", [info("row", TensorProto.INT64, [])], [info("p", 1, [101])]
        )
        scan = helper.make_node("Scan", ["rows"], ["y"], body=body, num_scan_inputs=1)
        inputs, ends = [info("rows", TensorProto.INT64, ["N"])], [info("y", 1, ["N", 101])]
        graph = helper.make_graph([scan], "g", inputs, ends)
        attributes = {a.name: a for a in graph.node[0].attribute}
        holder = attributes["body"].g if inside else graph
        holder.initializer.append(tensor)
        opsets = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        after, applied = encoded(proto, form)
        assert applied == 1
        assert outputs(after, 97, tmp_path / "o.onnx") == weight.tobytes()
        left = onnx.load(tmp_path / "o.onnx").graph
        assert sorted(operators(left)) == ["Gather", "Scan"]

    @pytest.mark.parametrize("form", ["bitmask", "delta"])
    @pytest.mark.parametrize("values", ["half", "palette"])
    @pytest.mark.parametrize("size", [4096, 4099])
    def test_values_in_fewer_bytes(self, form, values, size, tmp_path):
        weight = pruned((size,), 0.3)
        if values == "half":
            weight = weight.astype(np.float16).astype(np.float32)
        else:
            weight = np.sign(weight) * np.float32(0.1)
            weight[weight == 0] = 0
        found = next(e for e in encodings(ir.tensor(weight)) if e.layout == form)
        assert found.values == values
        after, _ = encoded(reader(weight), form)
        assert outputs(after, size, tmp_path / "o.onnx") == weight.tobytes()
        assert operators(onnx.load(tmp_path / "o.onnx").graph) == ["Gather"]
        back = PassManager(TARGETS["cpu"]).run(load(after), [DecodeSparse()])
        assert back.graph.initializers["w"].const_value.tobytes() == weight.tobytes()


class TestSizes:
    @pytest.mark.parametrize("density", [0.5, 0.3, 0.1, 0.05, 0.01, 0.001, 0.0])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int8])
    def test_the_sizes_foretold_are_those_of_the_file(self, density, dtype):
        weight = pruned((200, 301), density, dtype)
        proto = reader(weight)
        rest = len(proto.SerializeToString()) - weight.nbytes
        for form in FORMS:
            foretold = [e for e in encodings(ir.tensor(weight)) if e.layout == form]
            after, applied = encoded(proto, form)
            assert applied == bool(foretold)
            if applied:
                size = len(after.SerializeToString()) - rest
                assert size <= foretold[0].nbytes < size + 2048
                assert size < weight.nbytes

    def test_the_smallest_is_taken(self):
        for density, layout in ((0.3, "bitmask"), (0.1, "delta"), (0.0001, "initializer")):
            weight = pruned((256, 256), density)
            assert encodings(ir.tensor(weight))[0].layout == layout
            after, _ = encoded(reader(weight), "auto")
            sizes = [len(encoded(reader(weight), form)[0].SerializeToString()) for form in FORMS]
            assert len(after.SerializeToString()) == min(sizes)

    @pytest.mark.parametrize(("density", "share"), [(0.3, 0.34), (0.1, 0.13)])
    def test_a_large_weight(self, density, share):
        weight = pruned((1024, 4096), density)
        assert encodings(ir.tensor(weight))[0].nbytes <= share * weight.nbytes

    def test_what_has_no_form(self):
        assert encodings(ir.StringTensor([b""] * 9999, shape=ir.Shape([9999]))) == []
        assert encodings(ir.tensor(np.zeros((0, 5), np.float32))) == []
        assert encodings(ir.tensor(np.float32(0))) == []

    def test_types_that_nothing_decodes_may_be_sparse_initializers(self):
        weight = pruned((99, 99), 0.01, ml_dtypes.bfloat16)
        assert [e.layout for e in encodings(ir.tensor(weight))] == ["initializer"]


_SPECIAL = (-0.0, np.nan, np.inf, -np.inf, 1e-45, -1e-40, 6e-8, 65504.0)
_TYPES = [t for t in DECODED_TYPES if t is not ir.DataType.BOOL]


@st.composite
def tensors(draw):
    dtype = draw(st.sampled_from(sorted(_TYPES, key=str))).numpy()
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    density = draw(st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.9, 1.0]))
    with np.errstate(all="ignore"):
        values = (rng.standard_normal(shape) * 10.0 ** draw(st.integers(-8, 3))).astype(dtype)
        if draw(st.booleans()):
            values = np.asarray(rng.integers(0, 2 ** (8 * values.itemsize), shape, np.uint64))
            values = values.astype(f"u{dtype.itemsize}").view(dtype)  # any bits at all
        if dtype.kind == "f" and draw(st.booleans()):
            values = np.asarray(rng.choice(np.array(_SPECIAL).astype(dtype), shape))
    return np.where(rng.random(shape) < density, values, np.zeros((), dtype))


class TestAnyTensor:
    @settings(deadline=None, max_examples=150)
    @given(weight=tensors(), form=st.sampled_from(FORMS))
    def test_what_is_encoded_saved_and_made_dense_is_the_same(self, weight, form, tmp_path_factory):
        folder = tmp_path_factory.mktemp("any")
        proto = reader(weight)
        model = load(proto)
        step = EncodeSparse(form, least_bytes=0)
        manager = PassManager(TARGETS["cpu"], check_each_patch=True)
        manager.run(model, [step])
        if not manager.record.applied:
            return
        saved = save(model, folder / "m.onnx")
        onnx.checker.check_model(str(saved))
        after = onnx.load(saved)
        assert outputs(after, weight.shape[0], folder / "o.onnx") == weight.tobytes()
        assert operators(onnx.load(folder / "o.onnx").graph) == ["Gather"]
        assert so.densify(saved, folder / "d.onnx").count == 1
        (dense,) = onnx.load(folder / "d.onnx").graph.initializer
        assert (dense.name, numpy_helper.to_array(dense).tobytes()) == ("w", weight.tobytes())
        again = PassManager(TARGETS["cpu"])
        again.run(load(saved), [step])
        assert not again.record.applied
