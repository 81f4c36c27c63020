"""Exact passes on random models: valid, equivalent, at rest, and so is every prefix of fuel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.checker
import pytest
from hypothesis import HealthCheck, given, settings
from random_models import models

from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.model.validity import interface
from structopt_onnx.passes import OWN
from structopt_onnx.rewriting.gates import Fuel, MustPay
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Feeds, Session

if TYPE_CHECKING:
    from structopt_onnx.rewriting.passes import Step

_EXACT = tuple(step() for step in OWN if step.exactness is not Exactness.LOSSY)
_SLOW = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def _feeds(session: Session, seed: int) -> Feeds:
    rng = np.random.default_rng(seed)
    defaults = session.overridable if seed else ()
    feeds: Feeds = {}
    for info in (*session.inputs, *defaults):
        dims = [d if isinstance(d, int) else 4 for d in info.shape]
        feeds[info.name] = (
            np.array(bool(seed))
            if info.dtype == np.bool_
            else np.asarray(rng.standard_normal(dims), np.float32)
        )
    return feeds


def _run(proto: onnx.ModelProto, steps: tuple[Step, ...], fuel: int | None = None):
    manager = PassManager(CpuTarget(), (MustPay(CpuTarget()), Fuel(fuel)), check_each_patch=True)
    return manager, manager.run(load(proto), steps)


def _assert_equivalent(before: onnx.ModelProto, after: onnx.ModelProto, exactness: Exactness):
    onnx.checker.check_model(after, full_check=True)
    assert interface(load(after)) == interface(load(before))
    one = Session(before.SerializeToString(), optimize=False)
    other = Session(after.SerializeToString(), optimize=False)
    for seed in (0, 1):
        feeds = _feeds(one, seed)
        was, now = one.run(feeds), other.run(feeds)
        assert list(was) == list(now)
        for name, expected in was.items():
            assert (now[name].dtype, now[name].shape) == (expected.dtype, expected.shape)
            if exactness is Exactness.BITWISE:
                np.testing.assert_array_equal(now[name], expected)
            else:
                scale = float(np.abs(expected).max(initial=1.0))
                np.testing.assert_allclose(now[name], expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("step", _EXACT, ids=lambda step: step.name)
@given(proto=models())
@_SLOW
def test_each_pass_alone_keeps_the_function(step: Step, proto: onnx.ModelProto):
    before = proto.SerializeToString(deterministic=True)
    _, out = _run(proto, (step,))
    _assert_equivalent(proto, to_proto(out), step.exactness)
    assert proto.SerializeToString(deterministic=True) == before


@given(models())
@_SLOW
def test_the_whole_pipeline_keeps_the_function_and_comes_to_rest(proto: onnx.ModelProto):
    manager, out = _run(proto, _EXACT)
    after = to_proto(out)
    _assert_equivalent(proto, after, Exactness.ROUNDING)
    again, _ = _run(after, _EXACT)
    assert [(e.step, e.title) for e in again.record.applied] == []
    if not manager.record.applied:
        assert after == to_proto(load(proto))


@given(models(), st.data())
@_SLOW
def test_any_prefix_of_the_patches_keeps_the_function(proto: onnx.ModelProto, data):
    manager, _ = _run(proto, _EXACT)
    applied = manager.record.applied
    fuel = data.draw(st.integers(0, len(applied)))
    limited, out = _run(proto, _EXACT, fuel)
    assert [(e.step, e.title) for e in limited.record.applied] == [
        (e.step, e.title) for e in applied[:fuel]
    ]
    _assert_equivalent(proto, to_proto(out), Exactness.ROUNDING)
