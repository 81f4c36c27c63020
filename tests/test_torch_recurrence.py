"""Recurrences that torch's exporters write out step by step become one operator."""

from __future__ import annotations

import os
import warnings
from collections import Counter

import numpy as np
import onnx
import pytest

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import catalogue
from structopt_onnx.rewriting.gates import MustPay
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

_PIPELINE = "normalize,remove-identities,share-initializers,reroll-recurrence"
_PLUMBING = {"Transpose", "Squeeze", "Reshape"}


class Loop(torch.nn.Module):
    """Runs cells over x in a Python loop, as people write it."""

    def __init__(self, cell: str, *, layers: int = 1, both: bool = False, **options: str):
        super().__init__()
        make = getattr(torch.nn, cell)
        widths = [3] + [8 if both else 4] * (layers - 1)
        self.forth = torch.nn.ModuleList([make(width, 4, **options) for width in widths])
        self.back = torch.nn.ModuleList([make(width, 4, **options) for width in widths])
        self.both = both

    def forward(self, x):
        steps = list(x.unbind(1))
        for forth, back in zip(self.forth, self.back, strict=True):
            ahead = self.run(forth, steps)
            if self.both:
                behind = self.run(back, steps[::-1])[::-1]
                ahead = [torch.cat(pair, -1) for pair in zip(ahead, behind, strict=True)]
            steps = ahead
        return torch.stack(steps, 1)

    def run(self, cell, steps):
        state = cell_state = torch.zeros(steps[0].shape[0], 4)
        made = []
        for x in steps:
            if isinstance(cell, torch.nn.LSTMCell):
                state, cell_state = cell(x, (state, cell_state))
            else:
                state = cell(x, state)
            made.append(state)
        return made


def exported(module, steps: int, *, dynamo: bool, static: bool = False) -> onnx.ModelProto:
    torch.manual_seed(0)
    x = torch.randn(2, steps, 3)
    options: dict[str, object] = {"input_names": ["x"], "output_names": ["y"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        if dynamo:
            shapes = None if static else ({0: torch.export.Dim("batch")},)
            return torch.onnx.export(
                module.eval(), (x,), dynamo=True, verbose=False, dynamic_shapes=shapes, **options
            ).model_proto
        import io  # noqa: PLC0415 - one exporter of two needs it

        file = io.BytesIO()
        axes = None if static else {"x": {0: "batch"}, "y": {0: "batch"}}
        torch.onnx.export(module.eval(), (x,), file, dynamo=False, dynamic_axes=axes, **options)
        return onnx.load_from_string(file.getvalue())


def check(module, model: onnx.ModelProto, operators: dict[str, int]) -> None:
    target = CpuTarget()
    manager = PassManager(target, (MustPay(target),))
    after = to_proto(manager.run(load(model), parse_pipeline(_PIPELINE, catalogue())))
    counted = Counter(node.op_type for node in after.graph.node)
    assert {k: n for k, n in counted.items() if k not in _PLUMBING} == operators
    (x,) = Session(after.SerializeToString()).inputs
    batch = x.shape[0] if isinstance(x.shape[0], int) else 3
    made = np.random.default_rng(0).standard_normal((batch, *x.shape[1:])).astype(np.float32)
    found = Session(after.SerializeToString(), optimize=False).run({"x": made})["y"]
    with torch.no_grad():
        expected = module(torch.from_numpy(made)).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_loop_over_a_cell(cell: str, dynamo: bool):
    module = Loop(cell)
    for steps in (2, 3) if dynamo else (2, 3, 12):  # the first takes long over many steps
        check(module, exported(module, steps, dynamo=dynamo), {cell.removesuffix("Cell"): 1})


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
def test_two_layers_of_two_directions(dynamo: bool):
    module = Loop("LSTMCell", layers=2, both=True)
    check(module, exported(module, 3, dynamo=dynamo), {"LSTM": 2})


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_first_step_that_was_folded(cell: str):
    module = Loop(cell)
    model = exported(module, 4, dynamo=True, static=True)
    check(module, model, {cell.removesuffix("Cell"): 1})


@pytest.mark.parametrize("both", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_two_steps_of_which_the_first_was_folded(cell: str, layers: int, both: bool):
    module = Loop(cell, layers=layers, both=both)
    model = exported(module, 2, dynamo=True, static=True)
    recurrent = [n for n in model.graph.node if any("weight_hh" in name for name in n.input)]
    assert len(recurrent) == layers * (1 + both)  # one product is left of two steps
    check(module, model, {cell.removesuffix("Cell"): layers})


@pytest.mark.parametrize("static", [False, True], ids=["any", "static"])
@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_two_steps_of_two_layers_of_two_directions(cell: str, static: bool):
    module = Loop(cell, layers=2, both=True)
    model = exported(module, 2, dynamo=False, static=static)
    check(module, model, {cell.removesuffix("Cell"): 2})


def test_a_loop_of_many_steps_with_relu():
    module = Loop("RNNCell", nonlinearity="relu")
    check(module, exported(module, 200, dynamo=False), {"RNN": 1})


@pytest.mark.parametrize("cell", ["LSTMCell", "GRUCell", "RNNCell"])
def test_a_loop_of_many_steps_by_dynamo(cell: str, pytestconfig: pytest.Config):
    if not pytestconfig.getoption("--slow-exports"):
        pytest.skip("the export takes minutes: --slow-exports")
    module = Loop(cell)
    check(module, exported(module, 200, dynamo=True, static=True), {cell.removesuffix("Cell"): 1})
