from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from conv_layers import Net, measured_error, nets, offered, rewritten
from hypothesis import assume, given, settings

from structopt_onnx.model.facts import Facts
from structopt_onnx.model.loading import load
from structopt_onnx.passes.convolution.kernel_parts import parts_of
from structopt_onnx.passes.convolution.shrink_filter import ShrinkFilter
from structopt_onnx.rewriting.patch_cost import patch_cost
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session


@given(nets(least_taps=2), st.sampled_from([0.0, 0.01, 0.5]), st.data())
@settings(max_examples=40)
def test_the_error_is_the_one_measured_on_the_samples(net: Net, unseen: float, data: st.DataObject):
    found = offered(net, ShrinkFilter(unseen=unseen), calibrated=True)
    assume(found)
    planned = data.draw(st.sampled_from(found))
    measured = measured_error(net, planned)
    assert measured == pytest.approx(planned.option.error, rel=1e-3, abs=1e-9)


@given(nets(least_taps=2), st.booleans(), st.data())
@settings(max_examples=40)
def test_taps_of_zeros_are_dropped_without_error(net: Net, calibrated: bool, data: st.DataObject):
    taps = data.draw(st.sampled_from(list(parts_of(net.shape[2:]))))
    sparse = replace(net, taps=taps)
    found = offered(sparse, ShrinkFilter(), calibrated=calibrated)
    # Of sizes that may change, nothing is sliced off beside padding.
    assume(found and (net.static or found[0].option.error < 1e-12))
    assert found[0].option.error < 1e-12
    small = Session(rewritten(sparse, found[0]).SerializeToString(), optimize=False)
    for sizes in [(9, 8, 7)] if net.static else [(9, 8, 7), (10, 11, 9)]:
        for sample in sparse.samples(sizes)[:2]:
            was, now = sparse.session().run(sample)["y"], small.run(sample)["y"]
            np.testing.assert_allclose(now, was, rtol=0, atol=1e-4)


@given(nets(least_taps=2), st.data())
@settings(max_examples=20)
def test_options_cost_what_they_say(net: Net, data: st.DataObject):
    found = offered(net, ShrinkFilter(), calibrated=True)
    assume(found)
    option = data.draw(st.sampled_from(found)).option
    facts = Facts(load(net.model()), shapes=net.shapes())
    patch = option.patch(facts.scopes[0], facts)
    before, after = patch_cost(patch, facts, CpuTarget())
    assert before.macs - after.macs == option.before.macs - option.after.macs
    saved = option.before.parameters - option.after.parameters
    assert before.parameters - after.parameters == saved
    assert option.after.nodes == after.nodes


class _Smooth(Net):
    """A net whose samples change slowly from position to position."""

    def samples(self, sizes: tuple[int, ...] = (9, 8, 7)) -> list[dict[str, np.ndarray]]:
        rough = super().samples(sizes)
        return [{"x": np.cumsum(np.cumsum(s["x"], axis=2), axis=3)} for s in rough]


def test_a_fit_to_smooth_inputs_needs_less_than_what_is_dropped():
    net = _Smooth((4, 4, 3, 3), {"pads": [1, 1, 1, 1]}, biased=True, seed=0, static=True)

    def least(*, calibrated: bool) -> float:
        return min(p.option.error for p in offered(net, ShrinkFilter(), calibrated=calibrated))

    assert least(calibrated=True) < 0.2 * least(calibrated=False)
