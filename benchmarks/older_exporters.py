"""Models in the style of two exporters that are gone, written by hand, as digits_cnn is trained.

MXNet and CNTK were not installed for this: these graphs are built here by hand, node
by node, after what their exporters wrote: opset 7 to 9, an IR in which initializers are graph
inputs, a batch that is fixed at one. The mark of each style is named in its function.

Sources: MXNet's ``mx2onnx`` (BatchNormalization with scales of one where gamma is fixed, Flatten
before Gemm with a transposed weight, Dropout left in); mnist-7 of the ONNX model zoo, which CNTK
2.5.1 wrote (Reshape of a parameter, ``auto_pad``, a bias as an Add of its own).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TRAINED = Path(__file__).resolve().parent.parent / "models" / "digits_cnn.onnx"
IR = 3  # an initializer must be listed as an input


def _weights() -> list[np.ndarray]:
    """Return weight and bias of the two convolutions and the two linear layers, in turn."""
    graph = onnx.load(TRAINED).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    named = [n for node in graph.node if node.op_type in {"Conv", "Gemm"} for n in node.input[1:]]
    return [arrays[name] for name in named]


def _model(
    producer: str,
    opset: int,
    nodes: list[onnx.NodeProto],
    stored: dict[str, np.ndarray],
    names: tuple[str, str],
) -> onnx.ModelProto:
    """Put a model together whose initializers are graph inputs too."""
    given, made = names
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    inputs = [helper.make_tensor_value_info(given, TensorProto.FLOAT, [1, 1, 8, 8])]
    inputs += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors]
    output = helper.make_tensor_value_info(made, TensorProto.FLOAT, [1, 10])
    graph = helper.make_graph(nodes, producer, inputs, [output], tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR, producer_name=producer
    )
    onnx.checker.check_model(model)
    return model


def mxnet_style() -> onnx.ModelProto:
    """Build digits_cnn as ``mx2onnx`` wrote networks, with a normalization after each convolution.

    The trained convolutions are divided by what the normalizations multiply by, so that the model
    still classifies digits.
    """
    conv0, bias0, conv1, bias1, dense0, bias2, dense1, bias3 = _weights()
    rng = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    value = "data"
    for k, (weight, bias) in enumerate(((conv0, bias0), (conv1, bias1))):
        channels = len(bias)
        mean = rng.normal(0, 0.1, channels).astype(np.float32)
        variance = rng.uniform(0.5, 2, channels).astype(np.float32)
        deviation = np.sqrt(variance + np.float32(1e-5))
        stored[f"convolution{k}_weight"] = weight * deviation[:, None, None, None]
        stored[f"batchnorm{k}_gamma"] = np.ones(channels, np.float32)
        stored[f"batchnorm{k}_beta"] = bias + mean / deviation
        stored[f"batchnorm{k}_moving_mean"] = mean
        stored[f"batchnorm{k}_moving_var"] = variance
        nodes += [
            helper.make_node(
                "Conv", [value, f"convolution{k}_weight"], [f"convolution{k}"], f"convolution{k}",
                kernel_shape=[3, 3], strides=[1, 1], dilations=[1, 1], pads=[1, 1, 1, 1], group=1,
            ),
            helper.make_node(
                "BatchNormalization",
                [f"convolution{k}", *(f"batchnorm{k}_{n}" for n in _STATISTICS)],
                [f"batchnorm{k}"], f"batchnorm{k}", epsilon=1e-5, momentum=0.9,
            ),
            helper.make_node("Relu", [f"batchnorm{k}"], [f"activation{k}"], f"activation{k}"),
        ]  # fmt: skip
        value = f"activation{k}"
    nodes += [
        helper.make_node(
            "MaxPool", [value], ["pooling0"], "pooling0",
            kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0],
        ),
        helper.make_node("Dropout", ["pooling0"], ["dropout0"], "dropout0", ratio=0.5),
    ]  # fmt: skip
    value = "dropout0"
    for k, (weight, bias) in enumerate(((dense0, bias2), (dense1, bias3))):
        stored[f"fullyconnected{k}_weight"] = weight
        stored[f"fullyconnected{k}_bias"] = bias
        nodes += [
            helper.make_node("Flatten", [value], [f"flatten{k}"], f"flatten{k}"),
            helper.make_node(
                "Gemm",
                [f"flatten{k}", f"fullyconnected{k}_weight", f"fullyconnected{k}_bias"],
                [f"fullyconnected{k}"], f"fullyconnected{k}",
                alpha=1.0, beta=1.0, transA=0, transB=1,
            ),
        ]  # fmt: skip
        value = f"fullyconnected{k}"
        if k == 0:
            nodes.append(helper.make_node("Relu", [value], ["activation2"], "activation2"))
            value = "activation2"
    nodes.append(helper.make_node("Softmax", [value], ["softmax"], "softmax", axis=1))
    return _model("mxnet-style", 7, nodes, stored, ("data", "softmax"))


_STATISTICS = ("gamma", "beta", "moving_mean", "moving_var")


def cntk_style() -> onnx.ModelProto:
    """Build digits_cnn as CNTK wrote its convolutional networks (mnist-7)."""
    conv0, bias0, conv1, bias1, dense0, bias2, dense1, bias3 = _weights()
    stored: dict[str, np.ndarray] = {}
    nodes: list[onnx.NodeProto] = []
    value = "Input3"
    for k, (weight, bias) in enumerate(((conv0, bias0), (conv1, bias1))):
        stored[f"Parameter{k}W"] = weight
        stored[f"Parameter{k}B"] = bias[:, None, None]
        nodes += [
            helper.make_node(
                "Conv", [value, f"Parameter{k}W"], [f"Convolution{k}_Output_0"], f"Convolution{k}",
                kernel_shape=[3, 3], strides=[1, 1], auto_pad="SAME_UPPER", group=1,
                dilations=[1, 1],
            ),
            helper.make_node(
                "Add", [f"Convolution{k}_Output_0", f"Parameter{k}B"], [f"Plus{k}_Output_0"],
                f"Plus{k}",
            ),
            helper.make_node("Relu", [f"Plus{k}_Output_0"], [f"ReLU{k}_Output_0"], f"ReLU{k}"),
        ]  # fmt: skip
        value = f"ReLU{k}_Output_0"
    nodes.append(
        helper.make_node(
            "MaxPool", [value], ["Pooling_Output_0"], "Pooling",
            kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0], auto_pad="NOTSET",
        )
    )  # fmt: skip
    stored["Parameter2W"] = dense0.T.reshape(32, 4, 4, 128)
    stored["Parameter2W_reshape_shape"] = np.array([512, 128], np.int64)
    stored["Pooling_reshape_shape"] = np.array([1, 512], np.int64)
    stored["Parameter2B"] = bias2[None]
    stored["Parameter3W"] = np.ascontiguousarray(dense1.T)
    stored["Parameter3B"] = bias3[None]
    nodes += [
        helper.make_node(
            "Reshape", ["Pooling_Output_0", "Pooling_reshape_shape"], ["Rows"], "Rows"
        ),
        helper.make_node(
            "Reshape", ["Parameter2W", "Parameter2W_reshape_shape"], ["Matrix"], "Matrix"
        ),
        helper.make_node("MatMul", ["Rows", "Matrix"], ["Times2_Output_0"], "Times2"),
        helper.make_node("Add", ["Times2_Output_0", "Parameter2B"], ["Plus2_Output_0"], "Plus2"),
        helper.make_node("Relu", ["Plus2_Output_0"], ["ReLU2_Output_0"], "ReLU2"),
        helper.make_node(
            "MatMul", ["ReLU2_Output_0", "Parameter3W"], ["Times3_Output_0"], "Times3"
        ),
        helper.make_node("Add", ["Times3_Output_0", "Parameter3B"], ["Plus3_Output_0"], "Plus3"),
    ]  # fmt: skip
    return _model("cntk-style", 8, nodes, stored, ("Input3", "Plus3_Output_0"))
