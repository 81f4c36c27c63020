from __future__ import annotations

import tracemalloc

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.sparsity.decode_sparse import DecodeSparse
from structopt_onnx.passes.sparsity.encode_sparse import EncodeSparse
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import TARGETS

SHAPE = (40, 43)


def encoded(form: str) -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weight = np.where(rng.random(SHAPE) < 0.1, rng.standard_normal(SHAPE), 0).astype(np.float32)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, ["N", SHAPE[0]])],
        [info("y", TensorProto.FLOAT, ["N", SHAPE[1]])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = load(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    return to_proto(PassManager(TARGETS["cpu"]).run(model, [EncodeSparse(form)]))


def decoded(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
    model = load(proto)
    for graph in (model.graph,):
        for node in graph:
            for output in node.outputs:
                if not output.is_graph_output():
                    output.type = output.shape = None  # nothing promised, nothing checked
    manager = PassManager(TARGETS["cpu"], check_each_patch=True)
    model = manager.run(model, [DecodeSparse()])
    return to_proto(model), [entry.refusal.code for entry in manager.record.refused]


@settings(deadline=None, max_examples=60)
@given(form=st.sampled_from(["bitmask", "delta"]), data=st.data())
def test_a_spoilt_decode_graph_is_left_alone_or_means_what_it_says(form, data):
    """Constants of any values and shapes: no crash, no memory, at worst a refusal."""
    proto = encoded(form)
    spoilt = data.draw(st.sampled_from(list(proto.graph.initializer)))
    array = numpy_helper.to_array(spoilt).copy()
    if array.dtype == np.int64:
        wild = st.sampled_from([-(2**63), -5, -1, 0, 1, 7, 2**31, 10**12, 2**63 - 1])
        array = np.array(data.draw(st.lists(wild, max_size=4)), np.int64)
    elif array.size > 1:
        array = array[: data.draw(st.integers(0, array.size))]
    elif array.dtype == np.int32:
        array = np.array(data.draw(st.integers(-3, 3)), np.int32)
    spoilt.CopyFrom(numpy_helper.from_array(array, spoilt.name))
    tracemalloc.start()
    after, refused = decoded(proto)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    left = {node.op_type for node in after.graph.node}
    assert set(refused) <= {"not-computed"}
    assert bool(refused) == ({"BitShift", "ScatterElements"} & left != set())


@pytest.mark.parametrize("form", ["bitmask", "delta"])
def test_what_a_decode_graph_shares_is_kept(form):
    proto = encoded(form)
    flat = next(o for n in proto.graph.node for o in n.output if o.endswith(".flat"))
    proto.graph.node.append(helper.make_node("ReduceMax", [flat], ["most"], keepdims=0))
    proto.graph.output.append(helper.make_tensor_value_info("most", TensorProto.FLOAT, []))
    after, refused = decoded(proto)
    assert not refused
    assert [node.op_type for node in after.graph.node] == ["MatMul", "ReduceMax"]
    kept = {tensor.name: tensor for tensor in after.graph.initializer}
    assert kept["w"].raw_data == kept[flat].raw_data
