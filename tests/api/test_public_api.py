from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import structopt_onnx as so
from structopt_onnx import api, errors

ROOT = Path(__file__).resolve().parents[2]


def test_all_is_the_public_api():
    commands = {
        "optimize", "explain", "validate", "benchmark", "compare_providers", "providers",
        "inspect", "bisect", "bundle", "densify", "export", "recover",
    }  # fmt: skip
    raised = {
        name
        for name, it in vars(errors).items()
        if inspect.isclass(it) and it.__module__ == errors.__name__
    }
    results = {
        "Bisection", "Bundle", "Comparison", "DensifyResult", "Inspection", "OptimizeOptions",
        "ProviderList", "ProviderTable", "Report", "Result", "ValidationReport",
    }  # fmt: skip
    assert set(so.__all__) == commands | raised | results | {
        "from_scipy",
        "to_scipy",
        "read_recipe",
    }
    assert set(so.__all__) <= set(dir(so))
    assert list(so.__all__) == sorted(so.__all__)


@pytest.mark.parametrize("name", so.__all__)
def test_everything_public_is_there_and_documented(name):
    found = getattr(so, name)
    # A dataclass without a docstring is given its signature for one.
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}(")
    assert found.__name__ == name


@pytest.mark.parametrize("name", api.__all__)
def test_the_api_room_offers_the_same(name):
    assert getattr(api, name) is getattr(so, name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'optimise'"):
        _ = so.optimise


@pytest.mark.parametrize("name", ["optimize", "explain", "validate", "inspect", "densify"])
def test_a_source_of_no_known_kind_is_refused(name, tmp_path):
    rest = {"validate": [3], "densify": [tmp_path / "out.onnx"]}.get(name, [])
    with pytest.raises(so.UsageError, match="not int"):
        getattr(so, name)(3, *rest)


def test_importing_the_package_imports_no_other_library():
    code = "import sys, structopt_onnx as so; so.UsageError; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert not loaded & {"onnx", "onnxruntime", "numpy", "onnx_ir", "scipy", "rich", "typer"}


def test_optimizing_imports_neither_torch_nor_plots(padded):
    code = (
        "import sys, structopt_onnx as so; so.optimize(sys.argv[1], benchmark=False); "
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(padded)],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert not loaded & {"torch", "jinja2", "matplotlib", "rich", "typer"}
