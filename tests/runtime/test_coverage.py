from __future__ import annotations

import onnx
import onnx.helper
import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.model.loading import load
from structopt_onnx.model.sparse import MARK
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.coverage import Coverage, coverage

_MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,4] x, float[1,3,5] s) => (float[1,3,5] z) {
  a = Relu(x)
  b = Transpose<perm = [0, 1, 2]>(a)
  , h = RNN<hidden_size = 5>(b, w, r, , , s)
  two = Constant<value_float = 2.0>()
  m = Mul(h, two)
  t = Transpose(m)
  u = Transpose(t)
  z = Tanh(u)
}
"""


def _model():
    proto = onnx.parser.parse_model(_MODEL)
    for name, dims in (("w", [1, 5, 4]), ("r", [1, 5, 5])):
        size = dims[1] * dims[2]
        proto.graph.initializer.append(
            onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, dims, [0.0] * size)
        )
    return load(proto)


@pytest.mark.parametrize("name", ["nnapi", "coreml", "qnn"])
def test_nodes_and_partitions_are_counted(name: str):
    found = coverage(_model(), TARGETS[name])
    # The constant is none of the 7 nodes; the recurrence cuts what is left in two.
    assert found == Coverage(name, 7, 6, 2, ("ai.onnx:RNN",))
    assert found.share == 6 / 7
    assert found.basis == "predicted"


def test_free_dimensions_are_said():
    model = _model()
    model.graph.inputs[0].shape = ir.Shape([2, "N", 4])
    found = coverage(model, TARGETS["nnapi"])
    assert found is not None
    assert found.free_dimensions
    assert found.supported == 6


def test_the_model_stays_as_it_was():
    model = _model()
    coverage(model, TARGETS["coreml"])
    assert [node.op_type for node in model.graph].count("Constant") == 1


def test_the_cpu_takes_everything():
    assert coverage(_model(), TARGETS["cpu"]) is None


@pytest.mark.parametrize("name", ["nnapi", "coreml", "qnn"])
def test_weights_may_be_sparse(name: str):
    dense, sparse = _model(), _model()
    for tensor in ("w", "r"):
        sparse.graph.initializers[tensor].meta[MARK] = True
    assert coverage(sparse, TARGETS[name]) == coverage(dense, TARGETS[name])
