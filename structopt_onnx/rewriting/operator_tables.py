"""Which operators the mobile providers of onnxruntime list as theirs; names alone.

Operators of the default domain by name, others as ``domain:Name``. What a list says beside the
names (constant weights, two spatial axes) is not kept: a provider may turn down a node that its
list names. None of the lists has a recurrent operator, a loop or a scan.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


NNAPI = _names(
    """
    Abs Add AveragePool BatchNormalization Cast Clip Concat Conv DepthToSpace DequantizeLinear
    Div Elu Exp Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Identity LRN LeakyRelu
    Log MatMul Max MaxPool Min Mul Neg PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear
    ReduceMean Relu Reshape Resize Sigmoid Sin Slice Softmax Split Sqrt Squeeze Sub Tanh
    Transpose Unsqueeze com.microsoft:QLinearAdd com.microsoft:QLinearAveragePool
    com.microsoft:QLinearSigmoid
    """
)
"""Of onnxruntime 1.32, ``tools/mobile_helpers/nnapi_supported_ops.md``."""

COREML = _names(
    """
    Add And ArgMax AveragePool Cast Ceil Clip Concat Conv ConvTranspose Cos DepthToSpace Div Elu
    Erf Exp GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool GridSample GroupNormalization
    HardSigmoid Identity InstanceNormalization LayerNormalization LeakyRelu MatMul Max MaxPool
    Mul PRelu Pow Reciprocal ReduceMax ReduceMean ReduceSum Relu Reshape Resize Round Shape
    Sigmoid Sin Slice Softmax Softplus Split Sqrt Squeeze Sub Tanh Tile Transpose Unsqueeze
    Where com.microsoft:FusedConv com.microsoft:QuickGelu
    """
)
"""Of the ML Program format, onnxruntime 1.32, ``coreml_supported_mlprogram_ops.md``."""

QNN = _names(
    """
    Abs Add And ArgMax ArgMin Asin Atan AveragePool BatchNormalization Cast Clip Concat Conv
    ConvTranspose Cos DepthToSpace DequantizeLinear Div Elu Equal Exp Expand Flatten Floor
    Gather Gelu Gemm GlobalAveragePool Greater GreaterOrEqual GridSample HardSwish
    InstanceNormalization LRN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax
    LpNormalization MatMul Max MaxPool Min Mul Neg Not Or PRelu Pad Pow QuantizeLinear ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize Round Sigmoid Sign Sin Slice
    Softmax SpaceToDepth Split Sqrt Squeeze Sub Tanh Tile TopK Transpose Unsqueeze Where
    com.microsoft:DequantizeLinear com.microsoft:Gelu com.microsoft:QuantizeLinear
    """
)
"""Of "Supported ONNX operators" in onnxruntime's documentation of the QNN provider.

Reshape, which the documentation leaves out, is added: the provider has a builder for it. Releases
of the provider since 2.4 take GRU and LSTM too and unroll them themselves.
"""
