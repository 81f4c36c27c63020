from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from conv_layers import Net, measured_error, nets, offered, rewritten
from hypothesis import assume, given, settings

from structopt_onnx.passes.convolution.decouple_conv import DecoupleConv
from structopt_onnx.runtime.session import Session


@given(nets(least_taps=3), st.sampled_from([0.0, 0.01, 0.5]), st.data())
@settings(max_examples=40)
def test_the_error_is_the_one_measured_on_the_samples(net: Net, unseen: float, data: st.DataObject):
    found = offered(net, DecoupleConv(unseen=unseen), calibrated=True)
    assume(found)
    planned = data.draw(st.sampled_from(found))
    measured = measured_error(net, planned)
    assert measured == pytest.approx(planned.option.error, rel=1e-3, abs=1e-9)


class _Separable(Net):
    """A net whose outputs see every channel through one filter."""

    @property
    def weight(self) -> np.ndarray:
        rng = np.random.default_rng(self.seed + 2)
        groups = int(str(self.attributes["group"]))
        outputs, inputs, *kernel = self.shape
        filters = rng.standard_normal((groups, 1, inputs, *kernel))
        mixed = rng.standard_normal((groups, outputs // groups, inputs, *[1] * len(kernel)))
        return (filters * mixed).reshape(self.shape).astype(np.float32)


@given(nets(least_taps=3), st.booleans())
@settings(max_examples=30)
def test_one_filter_per_channel_is_found(net: Net, calibrated: bool):
    separable = _Separable(**vars(net))
    found = offered(separable, DecoupleConv(), calibrated=calibrated)
    assume(found)
    one = found[-1]  # more filters may come closer by what float32 rounds
    assert one.option.label == "depthwise 1"
    # Weights rounded to float32 are of rank 1 to that precision.
    assert one.option.error < 1e-11
    small = Session(rewritten(separable, one).SerializeToString(), optimize=False)
    for sizes in [(9, 8, 7)] if net.static else [(9, 8, 7), (10, 11, 9)]:
        for sample in separable.samples(sizes)[:2]:
            was, now = separable.session().run(sample)["y"], small.run(sample)["y"]
            np.testing.assert_allclose(now, was, rtol=0, atol=1e-4)
