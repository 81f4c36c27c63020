"""Models that other people made for other ends go through the exact pipeline unchanged in outputs.

The onnx package carries a model per operator and attribute, with data, and small networks whose
weights are made by operators.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.backend.test
import onnx.checker
import onnx.numpy_helper
import onnx.version_converter
import pytest
from onnx.backend.test.case.node import collect_testcases

from structopt_onnx.errors import DataError, ModelError
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import OWN
from structopt_onnx.rewriting.gates import MustPay
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Feeds, Session
from structopt_onnx.validation.compare import compare
from structopt_onnx.validation.tolerances import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATA = Path(onnx.backend.test.__file__).parent / "data"
_OLDEST = 7
_SHARE = 8  # one model in this many is tried by default
_LIGHT = 3
_EXACT = tuple(step() for step in OWN if step.exactness is not Exactness.LOSSY)


@dataclass(frozen=True)
class Foreign:
    """A model of the corpus and the inputs that come with it, by position."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[Any, ...] | None


@cache
def _operators() -> tuple[Foreign, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test cases' own arithmetic overflows
        found = collect_testcases(None)
    return tuple(Foreign(c.name, c.model, tuple(c.data_sets[0][0])) for c in found)


def _converted(kind: str) -> Iterator[Foreign]:
    for folder in sorted((_DATA / kind).iterdir()):
        files = sorted(folder.glob("test_data_set_0/input_*.pb"), key=lambda p: (len(p.name), p))
        inputs = [onnx.TensorProto.FromString(file.read_bytes()) for file in files]
        yield Foreign(f"{kind}/{folder.name}", onnx.load(folder / "model.onnx"), tuple(inputs))


def _light() -> Iterator[Foreign]:
    for path in sorted((_DATA / "light").glob("*.onnx")):
        yield Foreign(f"light/{path.stem}", onnx.load(path), None)


def _sample(models: list[Foreign], config: pytest.Config, count: int) -> list[Foreign]:
    if config.getoption("--all-foreign-models"):
        return models
    return random.Random(0).sample(models, count)


def _feeds(session: Session, foreign: Foreign) -> Feeds:
    if foreign.inputs is None:
        rng = np.random.default_rng(0)
        return {
            info.name: rng.standard_normal(
                [d if isinstance(d, int) else 1 for d in info.shape]
            ).astype(np.float32)
            for info in session.inputs
        }
    arrays = [
        onnx.numpy_helper.to_array(x)
        if isinstance(x, onnx.TensorProto)
        else x
        if isinstance(x, list)
        else np.asarray(x)
        for x in foreign.inputs
    ]
    return dict(zip((info.name for info in session.inputs), arrays, strict=False))


def _outcome(foreign: Foreign) -> str:
    """Run one model before and after the exact pipeline; say how it went if it could not be run."""
    model = foreign.model
    if next((o.version for o in model.opset_import if o.domain == ""), _OLDEST) < _OLDEST:
        model = onnx.version_converter.convert_version(model, 13)
    try:
        original = Session(model.SerializeToString(), optimize=False)
        feeds = _feeds(original, foreign)
        original.run(feeds)
    except (ModelError, DataError):
        return "can't be run"
    try:
        loaded = load(model)
    except ModelError:
        return "can't be loaded"
    arithmetic = arithmetic_dtype(loaded)
    manager = PassManager(CpuTarget(), (MustPay(CpuTarget()),), check_each_patch=True)
    rewritten = to_proto(manager.run(loaded, _EXACT))
    onnx.checker.check_model(rewritten)
    candidate = Session(rewritten.SerializeToString(), optimize=False)
    try:
        verdict = compare(
            original, candidate, [feeds], exactness=Exactness.ROUNDING, arithmetic=arithmetic
        )
    except DataError:
        return "has no outputs to compare"
    if any("is not deterministic" in failure for failure in verdict.failures):
        return "is random"
    if verdict.failures and all("only NaN or infinity" in f for f in verdict.failures):
        now = candidate.run(feeds)
        for name, was in original.run(feeds).items():
            np.testing.assert_array_equal(now[name], was)
        return "same"
    assert verdict.passed, f"{foreign.name}: {verdict.failures}: {manager.record.applied}"
    again = PassManager(CpuTarget(), (MustPay(CpuTarget()),))
    again.run(load(rewritten), _EXACT)
    assert again.record.applied == [], f"{foreign.name}: not at rest: {again.record.applied}"
    return "changed" if manager.record.applied else "same"


def _outcomes(models: list[Foreign]) -> Counter[str]:
    return Counter(_outcome(foreign) for foreign in models)


def test_models_of_single_operators(pytestconfig: pytest.Config):
    models = [foreign for foreign in _operators() if foreign.inputs is not None]
    tried = _sample(models, pytestconfig, len(models) // _SHARE)
    found = _outcomes(tried)
    ran = found["same"] + found["changed"]
    assert ran >= 0.8 * len(tried), found
    assert found["changed"] >= 0.1 * len(tried), found


@pytest.mark.parametrize("kind", ["simple", "pytorch-converted", "pytorch-operator"])
def test_exported_models(kind: str, pytestconfig: pytest.Config):
    models = list(_converted(kind))
    tried = _sample(models, pytestconfig, max(10, len(models) // _SHARE))
    found = _outcomes(tried)
    assert found["same"] + found["changed"] >= 0.7 * len(tried), found


def test_light_networks(pytestconfig: pytest.Config):
    models = list(_light())
    tried = _sample(models, pytestconfig, _LIGHT)
    found = _outcomes(tried)
    assert found["same"] + found["changed"] == len(tried), found
