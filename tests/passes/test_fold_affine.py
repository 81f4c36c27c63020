from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import pytest
from convolution_nets import Net, assert_kept
from hypothesis import HealthCheck, event, given, settings

from structopt_onnx.passes.cleanup.fold_batchnorm import FoldBatchnorm
from structopt_onnx.passes.convolution.fold_affine import FoldAffine

if TYPE_CHECKING:
    import onnx

    from structopt_onnx.rewriting.passes import Step


@st.composite
def normalized(draw: st.DrawFn):
    """Draw a convolution behind which there is arithmetic on channels and normalization."""
    net = Net(draw, draw(st.sampled_from([1, 2, 2, 3])))
    made = [net.conv(net.input())]
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["scaled", "scaled", "normalized", "unary", "max", "average"]))
        if kind in {"max", "average"}:
            made.append(net.pool(made[-1], "MaxPool" if kind == "max" else "AveragePool"))
        else:
            made.append(getattr(net, kind)(made[-1]))
    outputs = [made[-1]]
    if draw(st.integers(0, 3)) == 0:
        outputs.append(draw(st.sampled_from(made)))
    return net.model(outputs)


@pytest.mark.parametrize("step", [FoldAffine(), FoldBatchnorm()], ids=lambda step: step.name)
@given(proto=normalized())
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_the_folded_convolution_does_the_same(step: Step, proto: onnx.ModelProto):
    event(f"{assert_kept(proto, step)} patches")
