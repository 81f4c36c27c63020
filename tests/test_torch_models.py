"""Models as torch's current exporter hands them over, without a trip through disk."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest

import structopt_onnx as so
from structopt_onnx.runtime.session import Session

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

RANK = 6


def low_rank_mlp():
    torch.manual_seed(0)
    wide = torch.nn.Linear(64, 96)
    with torch.no_grad():
        wide.weight.copy_(torch.randn(96, RANK) @ torch.randn(RANK, 64))
    return torch.nn.Sequential(wide, torch.nn.ReLU(), torch.nn.Linear(96, 10)).eval()


def exported(module):
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        return torch.onnx.export(
            module,
            (torch.randn(2, 64),),
            input_names=["x"],
            output_names=["y"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )


def test_an_exported_program_is_optimized_and_equals_its_module(tmp_path):
    module = low_rank_mlp()
    program = exported(module)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 64)).astype(np.float32)
    out = tmp_path / "out.onnx"
    report = so.optimize(
        program, out, calibration={"x": x}, max_error=1e-4, minimize="parameters", benchmark=False
    ).report
    (option,) = [entry.option for entry in report.applied if entry.option]
    assert option.startswith("rank 8")
    assert report.after.cost.parameters < report.before.cost.parameters
    fresh = rng.standard_normal((5, 64)).astype(np.float32)
    expected = module(torch.from_numpy(fresh)).detach().numpy()
    found = Session(out).run({"x": fresh})["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_the_program_stays_as_it_was():
    program = exported(low_rank_mlp())
    before = program.model_proto.SerializeToString()
    so.optimize(
        program, minimize="parameters", max_error=1e-3, allow_synthetic=True, benchmark=False
    )
    assert program.model_proto.SerializeToString() == before


class Tagger(torch.nn.Module):
    """A recurrent encoder with an output per step and the last layer's state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = torch.nn.LSTM(8, 16, 2, bidirectional=True, batch_first=True)
        self.head = torch.nn.Linear(32, 5)

    def forward(self, x):
        steps, (state, _) = self.encoder(x)
        return self.head(steps), state[-1]


@pytest.mark.parametrize("dynamo", [True, False])
def test_what_exporters_put_around_recurrences_goes(tmp_path, dynamo: bool):
    module, x, path = Tagger().eval(), torch.randn(3, 7, 8), tmp_path / "in.onnx"
    free = (
        {"dynamic_shapes": ({0: torch.export.Dim("batch")},)}
        if dynamo
        else {"dynamic_axes": {"x": {0: "batch"}}}
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own deprecations
        torch.onnx.export(
            module, (x,), path, input_names=["x"], output_names=["y", "h"],
            dynamo=dynamo, verbose=False, **free,
        )  # fmt: skip
    report = so.optimize(path, tmp_path / "out.onnx", benchmark=False).report
    # Two layers, three transposes, two merges of directions, a linear layer, a choice of state.
    assert report.after.cost.nodes == 10 < report.before.cost.nodes
    expected = module(x)
    found = Session(tmp_path / "out.onnx").run({"x": x.numpy()})
    for name, tensor in zip(("y", "h"), expected, strict=True):
        np.testing.assert_allclose(found[name], tensor.detach().numpy(), atol=1e-5)
