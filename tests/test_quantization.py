"""onnxruntime's own quantization takes our results as it takes the originals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import structopt_onnx as so
from structopt_onnx.runtime.session import Session

MODELS = Path(__file__).parent.parent / "models"
WEIGHTED = {"Conv", "Gemm", "MatMul"}
POINT = 0.01


def data(part):
    with np.load(MODELS / f"digits_cnn_{part}.npz") as stored:
        return stored["x"]


class Reader(CalibrationDataReader):
    def __init__(self, x):
        self.left = ({"x": x[place : place + 1]} for place in range(len(x)))

    def get_next(self):
        return next(self.left, None)


def quantized(model, made):
    prepared = made.with_suffix(".prepared.onnx")
    quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    quantize_static(str(prepared), str(made), Reader(data("calibration")[:128]), per_channel=True)
    return made


def classes(model):
    return Session(model).run({"x": data("test")})["logits"].argmax(axis=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The original and ours, and both of them in int8."""
    folder = tmp_path_factory.mktemp("int8")
    original, ours = MODELS / "digits_cnn.onnx", folder / "ours.onnx"
    so.optimize(
        original,
        ours,
        calibration=MODELS / "digits_cnn_calibration.npz",
        max_error=0.05,
        minimize="macs",
        benchmark=False,
    )
    its, our = (quantized(m, folder / f"{m.stem}_int8.onnx") for m in (original, ours))
    return original, ours, its, our


def test_every_weight_of_ours_is_int8(files):
    _, ours, _, our = files
    onnx.checker.check_model(str(our), full_check=True)
    graph = onnx.load(our).graph
    made = {name: node for node in graph.node for name in node.output}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    read = [made[node.input[1]] for node in graph.node if node.op_type in WEIGHTED]
    wanted = [n for n in onnx.load(ours).graph.node if n.op_type in WEIGHTED]
    assert len(read) == len(wanted) > 4
    for node in read:
        assert node.op_type == "DequantizeLinear"
        assert stored[node.input[0]].data_type == onnx.TensorProto.INT8


def test_ours_in_int8_decides_as_the_original_does(files):
    original, ours, its, our = files
    expected = classes(original)
    agreement = {path: np.mean(classes(path) == expected) for path in (ours, its, our)}
    assert agreement[our] >= agreement[its] - POINT
    assert our.stat().st_size < 0.4 * its.stat().st_size
    assert so.validate(original, our, data={"x": data("test")}, max_error=0.05).passed
