from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from structopt_onnx.api import options
from structopt_onnx.model.edit import Edit, Fresh, NewNode
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.patch import Patch
from structopt_onnx.passes import catalogue
from structopt_onnx.rewriting.passes import NodePass, Step
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MODELS = Path(__file__).resolve().parents[2] / "models"


@dataclass(frozen=True)
class Saturate(NodePass[ir.Node]):
    """Promises to be exact and is not: a Relu becomes a Clip that ends at `limit`."""

    name: ClassVar[str] = "saturate"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    canonical: ClassVar[bool] = True
    roots: ClassVar[frozenset[str]] = frozenset({"Relu"})

    limit: float = 1e4

    def match(self, node, scope, facts) -> ir.Node:
        return node

    def rewrite(self, scope, facts, match) -> Patch:
        out = Fresh(f"{match.outputs[0].name}_saturated")
        ends = [Fresh("end", ir.tensor(np.float32(end))) for end in (0.0, self.limit)]
        clip = NewNode("Clip", (match.inputs[0], *ends), (out,))
        edit = Edit((match,), (clip,), rewire={match.outputs[0]: out})
        return Patch(f"{match.name} ends at {self.limit:g}", match, {scope: edit})


@pytest.fixture
def plant(monkeypatch) -> Callable[..., None]:
    """Add steps to the end of the catalogue."""

    def plant(*steps: type[Step]) -> None:
        known = {**catalogue(), **{step.name: step for step in steps}}
        monkeypatch.setattr(options, "catalogue", lambda: known)

    return plant


@pytest.fixture
def saturate(plant) -> type[Saturate]:
    """Have a pass in the catalogue that is wrong for large values only."""
    plant(Saturate)
    return Saturate


@pytest.fixture
def delivering() -> object:
    """Return the module that validates and writes what was optimized."""
    return importlib.import_module("structopt_onnx.api.deliver")


@pytest.fixture
def timing() -> object:
    """Return the module that times candidates."""
    return importlib.import_module("structopt_onnx.api.speed")


@pytest.fixture(scope="session")
def padded(tmp_path_factory) -> Path:
    """A small trained network with three identities and a copied weight in it."""
    proto = onnx.load(MODELS / "digits_mlp.onnx")
    graph = proto.graph
    copied = onnx.TensorProto()
    copied.CopyFrom(next(t for t in graph.initializer if t.name == "2.bias"))
    copied.name = "copied.bias"
    graph.initializer.append(copied)
    graph.node[2].input[2] = "copied.bias"
    graph.node[0].input[2] = "2.bias"
    for position in (4, 2, 0):
        node = graph.node[position]
        identity = onnx.helper.make_node(
            "Identity", [node.input[0]], [f"same_{position}"], name=f"identity_{position}"
        )
        node.input[0] = f"same_{position}"
        graph.node.insert(position, identity)
    path = tmp_path_factory.mktemp("padded") / "padded.onnx"
    onnx.save(proto, path)
    return path


@pytest.fixture(scope="session")
def calibration() -> Path:
    """Inputs of the padded network."""
    return MODELS / "digits_mlp_calibration.npz"


def relative_l2(a, b, samples) -> float:
    """Error of model B's outputs, pooled over samples, of the worst output."""
    first, second = Session(a), Session(b)
    off: dict[str, float] = {}
    size: dict[str, float] = {}
    for feeds in samples:
        expected, found = first.run(feeds), second.run(feeds)
        for name, array in expected.items():
            difference = np.float64(found[name]) - np.float64(array)
            off[name] = off.get(name, 0.0) + float((difference**2).sum())
            size[name] = size.get(name, 0.0) + float((np.float64(array) ** 2).sum())
    return max((off[name] / size[name]) ** 0.5 for name in off)


@pytest.fixture(scope="session")
def error_between() -> Callable[..., float]:
    """Measure models without the package's own comparison."""
    return relative_l2


@pytest.fixture(scope="session")
def models() -> Path:
    """Return the folder of the models that come with the project."""
    return MODELS


@pytest.fixture
def rows(models) -> Iterator[np.ndarray]:
    """Yield the calibration inputs of the digits network, float32 [359, 64]."""
    with np.load(models / "digits_mlp_calibration.npz") as arrays:
        yield arrays["x"]
