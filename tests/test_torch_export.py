"""From a torch module to an optimized file: in one call, and in two lines behind torch's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import onnx
import pytest

import structopt_onnx as so
from structopt_onnx.cli import main
from structopt_onnx.runtime.session import Session

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

BATCH = {0: "batch"}
QUICK = {"benchmark": False}


@pytest.fixture(autouse=True)
def _exporters_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own
        yield


class Block(torch.nn.Module):
    """A basic block of a residual network (He et al., 2015)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            torch.nn.BatchNorm2d(outputs),
            torch.nn.ReLU(),
            torch.nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            torch.nn.BatchNorm2d(outputs),
        )
        self.short = torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x):
        return torch.relu(self.body(x) + self.short(x))


def resnet():
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2, 1),
        Block(8, 16, 2),
        Block(16, 16, 1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )
    return module, torch.randn(2, 3, 32, 32)


def encoder():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.1)
    return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 6, 32)


class Tagger(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(8, 16, batch_first=True)
        self.head = torch.nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.lstm(x)[0])


def tagger():
    torch.manual_seed(0)
    return Tagger(), torch.randn(2, 7, 8)


def _agrees(path, module, x):
    """Compare with torch on twice the batch that was exported."""
    fresh = torch.cat([x, 2 * x])
    session = Session(path)
    assert not isinstance(session.inputs[0].shape[0], int)
    (found,) = session.run({session.inputs[0].name: fresh.numpy()}).values()
    module.eval()
    with torch.no_grad():
        np.testing.assert_allclose(found, module(fresh).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [resnet, encoder, tagger])
def test_one_call_from_module_to_file(make, tmp_path):
    module, x = make()
    out = tmp_path / "out.onnx"
    result = so.export(module, (x,), out, dynamic_shapes=({0: torch.export.Dim("batch")},), **QUICK)
    assert module.training
    assert result.report.validation.passed
    _agrees(out, module, x)


@pytest.mark.parametrize("make", [resnet, encoder, tagger])
def test_two_lines_behind_an_export_that_is_there(make, tmp_path):
    module, x = make()
    path = str(tmp_path / "model.onnx")
    batches = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.randn(24, *x.shape[1:]), torch.zeros(24)), 4
    )
    dim = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(module.eval(), (x,), path, dynamic_shapes=dim, verbose=False)
    result = so.optimize(path, path, calibration=batches, **QUICK)
    assert result.report.samples.count == 24
    _agrees(tmp_path / "model.onnx", module, x)


def test_every_layer_is_left_in_its_mode():
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5)
    )
    module.train()
    module[1].eval()  # frozen
    so.export(module, (torch.randn(2, 4),), **QUICK)
    assert [layer.training for layer in module] == [True, False, True]
    module.eval()
    module[2].train()
    report = so.export(module, (torch.randn(2, 4),), **QUICK).report
    assert report.validation.passed
    assert module[2].training


def test_the_older_exporter_on_request(tmp_path):
    module, x = resnet()
    out = tmp_path / "out.onnx"
    so.export(
        module, (x,), out, dynamo=False, input_names=["x"], dynamic_axes={"x": BATCH}, **QUICK
    )
    _agrees(out, module, x)


def test_a_budget_with_a_loader(tmp_path):
    torch.manual_seed(0)
    thin = torch.nn.Sequential(torch.nn.Linear(64, 4), torch.nn.Linear(4, 64))
    wide = torch.nn.Linear(64, 64)
    with torch.no_grad():
        wide.weight.copy_(thin[1].weight @ thin[0].weight)
    loader = torch.utils.data.DataLoader(torch.randn(64, 64), 16)
    result = so.export(
        wide,
        (torch.randn(2, 64),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        calibration=loader,
        max_error=0.01,
        minimize="parameters",
        **QUICK,
    )
    report = result.report
    assert report.samples.count == 64
    assert report.after.cost.parameters < 0.3 * report.before.cost.parameters


@pytest.mark.parametrize("dynamo", [True, False])
def test_the_report_names_the_module(dynamo):
    report = so.export(torch.nn.Linear(8, 3), (torch.randn(1, 8),), dynamo=dynamo, **QUICK).report
    assert report.source == "Linear"
    assert str(report).startswith("Linear: ")


def test_what_torch_can_not_export_is_one_error():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(so.ModelError, match="Odd: torch can't export it"):
        so.export(Odd(), (torch.randn(2),))


def test_axes_of_the_older_exporter_are_told_apart():
    with pytest.raises(so.UsageError, match="dynamic_shapes"):
        so.export(torch.nn.Linear(2, 2), (torch.randn(1, 2),), dynamic_axes={"x": BATCH})


def test_without_torch_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("structopt_onnx.api.export.find_spec", lambda _: None)
    with pytest.raises(so.UsageError, match=r"pip install 'structopt-onnx\[export\]'"):
        so.export(None, ())


def test_the_command_silences_two_lines_of_torch_s_and_no_other(tmp_path):
    (tmp_path / "noisy.py").write_text(
        textwrap.dedent(
            """
            import logging
            import warnings

            import torch

            def pair():
                log = logging.getLogger("torch.onnx._internal.exporter._registration")
                log.warning("torchvision is not installed. Skipping %s", "torchvision::nms")
                log.warning("another line")
                warnings.warn(
                    "`isinstance(treespec, LeafSpec)` is deprecated, use ...", FutureWarning
                )
                warnings.warn("mine is deprecated", FutureWarning)
                return torch.nn.Linear(8, 3), (torch.randn(1, 8),)
            """
        )
    )
    words = ["export", "noisy.py:pair", "out.onnx", "--no-benchmark", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "structopt_onnx", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "another line" in done.stderr
    assert "FutureWarning: mine is deprecated" in done.stderr
    assert "torchvision" not in done.stderr
    assert "LeafSpec" not in done.stderr


def test_the_command_calls_a_factory(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export_me.py").write_text(
        textwrap.dedent(
            """
            import torch

            def pair():
                return torch.nn.Linear(8, 3), (torch.randn(1, 8),)

            def wrong():
                return 3

            def greedy():
                return {"module": torch.nn.Linear(8, 3), "args": (), "output": "mine.onnx"}

            def failing():
                raise RuntimeError("no weights")
            """
        )
    )
    assert main(["export", "export_me.py:pair", "out.onnx", "--no-benchmark", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["validation"]["passed"]
    onnx.checker.check_model("out.onnx")
    for factory, told in (
        ("wrong", "returned a int"),
        ("greedy", "'output' is not for the factory"),
        ("failing", "RuntimeError: no weights"),
    ):
        assert main(["export", f"export_me.py:{factory}", "no.onnx"]) == 2
        assert told in capsys.readouterr().err
        assert not (tmp_path / "no.onnx").exists()
