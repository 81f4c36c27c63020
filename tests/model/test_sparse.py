from __future__ import annotations

import math
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

import structopt_onnx.runtime  # noqa: F401 - sets onnxruntime up before its import
from structopt_onnx.errors import ModelError
from structopt_onnx.model.external import DataFolder
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save, serialized_size, to_proto
from structopt_onnx.model.sparse import DENSE_LIMIT, MARK, densify_tensor, sparsify_tensor

NOWHERE = DataFolder("model.onnx", None)
INDEX_TYPES = {np.int8, np.int16, np.int32, np.int64}


def coordinates(
    dense: np.ndarray, name: str = "w", *, index_type: type = np.int64, linear: bool = True
) -> onnx.SparseTensorProto:
    """An independent encoder: raw values, raw indices."""
    where = np.flatnonzero(dense) if linear else np.argwhere(dense)
    sparse = onnx.SparseTensorProto(dims=dense.shape)
    sparse.values.CopyFrom(numpy_helper.from_array(dense[dense != 0], name))
    sparse.indices.CopyFrom(numpy_helper.from_array(where.astype(index_type)))
    return sparse


def pruned(shape: tuple[int, ...] = (20, 30), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * (rng.random(shape) < 0.05)).astype(np.float32)


def linear(sparse: onnx.SparseTensorProto, **options: int) -> onnx.ModelProto:
    rows, columns = sparse.dims
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", sparse.values.name], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, ["N", rows])],
        [info("y", TensorProto.FLOAT, ["N", columns])],
    )
    graph.sparse_initializer.append(sparse)
    opsets = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opsets, **{"ir_version": 8, **options})


def branching(weight: np.ndarray, *, in_function: bool = True) -> onnx.ModelProto:
    """Sparse tensors everywhere: main graph, both branches under one name, constants, function.

    onnxruntime 1.32 crashes on sparse tensors in a function and in a branch together.
    """
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        g (bool c, float[N, 20] x) => (float[N, 30] y) {
          k = Constant <value = float[1] {0.0}> ()
          u = local.Shift (x)
          t = If (c) < then_branch = a () => (float[N, 30] p) { p = MatMul (u, w) },
                       else_branch = b () => (float[N, 30] q) { q0 = MatMul (u, w)
                                                                q = Add (q0, k) } >
          s = MatMul (x, v)
          y = Add (s, t)
        }
        <domain: "local", opset_import: ["" : 17]>
        Shift (x) => (r) { m = Constant <value = float[1] {0.0}> ()
                           r = Add (x, m) }""")
    proto.graph.sparse_initializer.append(coordinates(weight, "v"))
    for index, attribute in enumerate(proto.graph.node[2].attribute):
        attribute.g.sparse_initializer.append(coordinates(weight * (index + 2), "w"))
    for node, values in (
        (proto.graph.node[0], weight[:1]),
        (proto.functions[0].node[0], weight[:, :20]),
    ):
        node.attribute[0].CopyFrom(helper.make_attribute("sparse_value", coordinates(values, "")))
    proto.functions[0].node[1].op_type = "MatMul"
    if not in_function:
        dense = numpy_helper.from_array(weight[:, :20])
        proto.functions[0].node[0].attribute[0].CopyFrom(helper.make_attribute("value", dense))
    return proto


def outputs(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    import onnxruntime  # noqa: PLC0415 - after structopt_onnx.runtime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def count_sparse(proto: onnx.ModelProto) -> int:
    return str(proto).count("indices {")


class TestDensify:
    @pytest.mark.parametrize("index_type", INDEX_TYPES)
    @pytest.mark.parametrize("as_linear", [True, False])
    @pytest.mark.parametrize("part", ["raw", "typed", "external"])
    def test_every_form_of_indices(self, index_type, as_linear, part, tmp_path):
        dense = pruned((5, 7, 3))
        sparse = coordinates(dense, index_type=index_type, linear=as_linear)
        for tensor in (sparse.values, sparse.indices):
            if part == "typed":
                values = numpy_helper.to_array(tensor)
                tensor.CopyFrom(
                    helper.make_tensor(
                        tensor.name, tensor.data_type, tensor.dims, values.ravel().tolist()
                    )
                )
                assert not tensor.HasField("raw_data")
            elif part == "external":
                (tmp_path / f"{tensor.data_type}.bin").write_bytes(b"pad." + tensor.raw_data)
                tensor.ClearField("raw_data")
                tensor.data_location = TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=f"{tensor.data_type}.bin")
                tensor.external_data.add(key="offset", value="4")
        folder = DataFolder("model.onnx", tmp_path)
        again = numpy_helper.to_array(densify_tensor(sparse, "w", folder))
        np.testing.assert_array_equal(again, dense)
        assert again.dtype == dense.dtype

    @pytest.mark.parametrize(
        ("dims", "values", "indices", "index_shape", "cause"),
        [
            ([10], 2, [1, 10], [2], "out of range"),
            ([10], 2, [-1, 1], [2], "out of range"),
            ([10], 2, [5, 1], [2], "ascending"),
            ([10], 2, [1, 1], [2], "repeated"),
            ([10], 11, [*range(10), 9], [11], "repeated"),
            ([2, 5], 2, [0, 1, 0, 5], [2, 2], "out of range"),
            ([2, 5], 2, [0, -1, 0, 4], [2, 2], "out of range"),
            ([2, 5], 2, [1, 0, 0, 4], [2, 2], "ascending"),
            ([2, 5], 2, [0, 2**62, 1, 1], [2, 2], "out of range"),
            ([10], 1, [2**63 - 1], [1], "out of range"),
            ([10], 2, [1], [1], "don't fit"),
            ([10], 2, [1, 2, 3, 4, 5, 6], [2, 3], "don't fit"),
            ([2, 5], 4, [1, 2, 3, 4], [2, 2], "don't fit"),
            ([10], 2, [1, 2], [1, 2], "don't fit"),
            ([10], 0, [], [], "don't fit"),
            ([], 1, [0], [1], "not all positive"),
            ([0], 0, [], [0], "not all positive"),
            ([-5], 1, [0], [1], "not all positive"),
            ([-2, -5], 1, [0], [1], "not all positive"),
            ([10**12], 1, [0], [1], "is the limit"),
            ([2**31] * 3, 1, [0], [1], "is the limit"),
            ([2**62, 4], 1, [0], [1], "is the limit"),
            ([2**29], 1, [0], [1], "is the limit"),
        ],
    )
    def test_hostile_tensors(self, dims, values, indices, index_shape, cause):
        sparse = onnx.SparseTensorProto(dims=dims)
        sparse.values.CopyFrom(numpy_helper.from_array(np.ones(values, np.float32), "w"))
        sparse.indices.data_type = TensorProto.INT64
        sparse.indices.dims.extend(index_shape)
        sparse.indices.int64_data.extend(indices)
        tracemalloc.start()
        with pytest.raises(ModelError, match=cause) as caught:
            densify_tensor(sparse, "sparse initializer 'w'", NOWHERE)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
        tracemalloc.stop()
        assert str(caught.value).startswith("model.onnx: sparse initializer 'w': ")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda s: setattr(s.values, "raw_data", s.values.raw_data[:-1]),
            lambda s: setattr(s.indices, "raw_data", s.indices.raw_data[:-1]),
            lambda s: s.values.dims.__setitem__(0, 10**12),
            lambda s: (s.values.dims.__setitem__(0, 10**12), s.indices.dims.__setitem__(0, 10**12)),
            lambda s: (s.values.dims.__setitem__(0, -1), s.indices.dims.__setitem__(0, -1)),
            lambda s: setattr(s.values, "data_type", TensorProto.STRING),
            lambda s: setattr(s.values, "data_type", 0),
            lambda s: setattr(s.values, "data_type", 99),
            lambda s: setattr(s.indices, "data_type", TensorProto.UINT64),
            lambda s: setattr(s.indices, "data_type", TensorProto.DOUBLE),
            lambda s: s.values.ClearField("raw_data"),
            lambda s: s.ClearField("indices"),
            lambda s: s.ClearField("values"),
            lambda s: setattr(s.values, "data_location", TensorProto.EXTERNAL),
        ],
    )
    def test_hostile_parts(self, spoil):
        sparse = coordinates(pruned())
        spoil(sparse)
        with pytest.raises(ModelError, match="'w'"):
            densify_tensor(sparse, "sparse initializer 'w'", NOWHERE)

    def test_the_limit_holds_for_the_model_as_a_whole(self):
        proto = linear(coordinates(pruned()))
        side = math.isqrt(DENSE_LIMIT // 4)
        for name in ("a", "b"):
            big = coordinates(np.ones((1, 1), np.float32), name)
            big.dims[:] = [side, side]
            proto.graph.sparse_initializer.append(big)
        with pytest.raises(ModelError, match=r"'b'.*is the limit"):
            load(proto)

    def test_attributes_that_have_no_dense_form(self):
        proto = linear(coordinates(pruned()))
        proto.opset_import.add(domain="my", version=1)
        node = helper.make_node("Odd", ["y"], ["z"], domain="my", name="odd")
        node.attribute.append(helper.make_attribute("table", coordinates(pruned())))
        proto.graph.node.append(node)
        with pytest.raises(ModelError, match=r"'table' of node 'odd'.*only Constant"):
            load(proto)

    def test_a_name_that_is_also_dense_is_refused(self):
        proto = linear(coordinates(pruned()))
        proto.graph.initializer.append(numpy_helper.from_array(pruned(), "w"))
        with pytest.raises(ModelError, match="not unique"):
            load(proto)


class TestModels:
    @pytest.mark.parametrize("index_type", INDEX_TYPES)
    def test_a_sparse_initializer_comes_back_sparse_valid_and_smaller(self, index_type, tmp_path):
        dense = pruned((6, 20))
        proto = linear(coordinates(dense, index_type=index_type))
        model = load(proto)
        value = model.graph.initializers["w"]
        np.testing.assert_array_equal(value.const_value.numpy(), dense)
        assert value.meta[MARK]
        assert not value.const_value.metadata_props
        for version in (model, model.clone(), load(model)):
            path = save(version, tmp_path / "m.onnx")
            again = onnx.load(path)
            onnx.checker.check_model(again)
            assert [s.values.name for s in again.graph.sparse_initializer] == ["w"]
            assert not again.graph.initializer
            assert not again.graph.value_info
            if index_type is np.int64:
                assert path.stat().st_size < len(proto.SerializeToString())
            assert abs(serialized_size(version) - path.stat().st_size) < 10
            np.testing.assert_array_equal(
                load(path).graph.initializers["w"].const_value.numpy(), dense
            )

    def test_subgraphs_constants_and_functions(self, tmp_path):
        weight = pruned()
        proto = branching(weight)
        assert count_sparse(proto) == 5
        model = load(proto)
        assert all(not graph_has_sparse(p) for p in [ir.to_proto(model).graph])
        feeds = {"x": np.random.default_rng(1).standard_normal((2, 20)).astype(np.float32)}
        again = onnx.load(save(model, tmp_path / "m.onnx"))
        assert count_sparse(again) == 5
        onnx.checker.check_model(again)
        assert len(again.SerializeToString()) < len(proto.SerializeToString())
        proto = branching(weight, in_function=False)
        again = to_proto(load(proto))
        assert count_sparse(again) == 4
        for condition in (True, False):
            feeds["c"] = np.array(condition)
            expected = outputs(proto, feeds)
            np.testing.assert_array_equal(outputs(again, feeds)[0], expected[0])
        stripped = load(model)
        for graph in (stripped.graph, *stripped.graph.subgraphs()):
            for value in graph.initializers.values():
                value.meta.pop(MARK)
                value.const_value.meta.pop(MARK)
        assert count_sparse(to_proto(stripped)) == 2  # the constants

    def test_the_mark_outlives_lifting_a_constant(self):
        model = load(branching(pruned()))
        common.LiftConstantsToInitializersPass()(model)
        assert "k" in model.graph.initializers
        assert count_sparse(to_proto(model)) == 5

    def test_new_values_that_are_not_sparse_are_written_dense(self):
        model = load(linear(coordinates(pruned())))
        full = np.ones((20, 30), np.float32)
        model.graph.initializers["w"].const_value = ir.tensor(full, name="w")
        proto = to_proto(model)
        assert not proto.graph.sparse_initializer
        np.testing.assert_array_equal(numpy_helper.to_array(proto.graph.initializer[0]), full)

    def test_a_mark_added_by_a_pass_is_honoured_in_order(self):
        model = load(linear(coordinates(pruned(), "b")))
        for name in ("a", "c", "d"):
            value = ir.Value(name=name, const_value=ir.tensor(pruned(seed=ord(name)), name=name))
            model.graph.register_initializer(value)
        model.graph.initializers["a"].meta[MARK] = True
        model.graph.initializers["d"].meta[MARK] = True
        proto = to_proto(model)
        assert [s.values.name for s in proto.graph.sparse_initializer] == ["b", "a", "d"]
        assert [t.name for t in proto.graph.initializer] == ["c"]
        again = load(proto)
        for name in ("a", "c", "d"):
            np.testing.assert_array_equal(
                again.graph.initializers[name].const_value.numpy(), pruned(seed=ord(name))
            )

    def test_old_versions_list_sparse_initializers_too(self):
        proto = linear(coordinates(pruned()), ir_version=3)
        proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [20, 30]))
        model = load(proto)
        assert [value.name for value in model.graph.inputs] == ["x"]
        again = to_proto(model)
        onnx.checker.check_model(again)
        assert [info.name for info in again.graph.input] == ["x", "w"]
        assert len(again.graph.sparse_initializer) == 1

    def test_external_data_and_sparse_tensors_side_by_side(self, tmp_path):
        model = load(linear(coordinates(pruned())))
        wide = ir.Value(name="d", const_value=ir.tensor(np.ones(1000, np.float32), name="d"))
        model.graph.register_initializer(wide)
        path = save(model, tmp_path / "m.onnx", external_data=True)
        proto = onnx.load(path, load_external_data=False)
        assert len(proto.graph.sparse_initializer) == 1
        assert proto.graph.initializer[0].data_location == TensorProto.EXTERNAL
        np.testing.assert_array_equal(
            load(path).graph.initializers["w"].const_value.numpy(), pruned()
        )

    def test_onnxruntime_reads_what_is_written(self):
        rng = np.random.default_rng(0)
        for density in (0.0, 0.02, 0.3):
            dense = rng.standard_normal((40, 500)) * (rng.random((40, 500)) < density)
            proto = to_proto(load(linear(coordinates(dense.astype(np.float32)))))
            assert len(proto.graph.sparse_initializer) == 1
            x = np.eye(40, dtype=np.float32)
            np.testing.assert_array_equal(outputs(proto, {"x": x})[0], dense.astype(np.float32))


def graph_has_sparse(graph: onnx.GraphProto) -> bool:
    return "sparse" in str(graph)


class TestSparsify:
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(
        hnp.arrays(
            st.sampled_from(["f4", "f8", "f2", "i1", "i8", "u4", "?", "c8", "c16"]).map(np.dtype),
            hnp.array_shapes(min_dims=1, max_dims=4, max_side=12),
            fill=st.just(0),
        )
    )
    def test_bits_are_kept_or_the_tensor_stays_dense(self, array):
        tensor = ir.tensor(array)
        sparse = sparsify_tensor(tensor, "w")
        if sparse is None:
            return
        assert sparse.ByteSize() < ir.to_proto(tensor).ByteSize() + len("w") + 2
        again = densify_tensor(sparse, "w", NOWHERE)
        assert again.raw_data == array.tobytes()
        graph = helper.make_graph(
            [helper.make_node("Identity", ["w"], ["y"])],
            "g",
            [],
            [helper.make_tensor_value_info("y", int(tensor.dtype), None)],
        )
        graph.output[0].type.tensor_type.shape.SetInParent()
        graph.sparse_initializer.append(sparse)
        onnx.checker.check_model(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        )

    def test_negative_zero_and_nan_keep_their_bits(self):
        array = np.zeros(1000, np.float32)
        array[[3, 500, 999]] = [-0.0, np.nan, -1]
        sparse = sparsify_tensor(ir.tensor(array), "w")
        assert list(sparse.indices.int64_data) == [3, 500, 999]
        assert densify_tensor(sparse, "w", NOWHERE).raw_data == array.tobytes()

    def test_packed_types(self):
        array = np.zeros(400, np.int8)
        array[[0, 7, 399]] = [-8, 7, 1]
        tensor = ir.tensor(array.astype(ir.DataType.INT4.numpy()), dtype=ir.DataType.INT4)
        again = densify_tensor(sparsify_tensor(tensor, "w"), "w", NOWHERE)
        assert again.raw_data == tensor.tobytes()
        assert again.data_type == TensorProto.INT4

    def test_indices_take_their_shortest_form(self):
        array = np.zeros(2**20, np.float32)
        array[:: 2**10] = 1
        sparse = sparsify_tensor(ir.tensor(array), "w")
        assert sparse.ByteSize() < 1024 * (4 + 3) + 100

    def test_what_would_not_shrink_stays_dense(self):
        for array in (
            np.ones(1000, np.float32),
            np.float32(1.0),
            np.zeros((0, 5), np.float32),
            np.zeros(2, np.float32),
        ):
            assert sparsify_tensor(ir.tensor(array), "w") is None
        words = ir.StringTensor([b"", b""] * 500, shape=ir.Shape([1000]))
        assert sparsify_tensor(words, "w") is None


def test_onnx_infers_shapes_where_a_sparse_weight_was_declared():
    dense = pruned()
    proto = linear(coordinates(dense))
    info = proto.graph.value_info.add()
    info.CopyFrom(helper.make_tensor_value_info("w", TensorProto.FLOAT, dense.shape))
    info.metadata_props.add(key="from", value="an exporter")
    written = to_proto(load(proto))
    assert [sparse.values.name for sparse in written.graph.sparse_initializer] == ["w"]
    inferred = onnx.shape_inference.infer_shapes(written)
    assert "w" not in {info.name for info in inferred.graph.value_info}
