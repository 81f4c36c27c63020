"""Every operator in torch against onnxruntime, on the cases that the onnx package carries."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.version_converter
import onnx_ir as ir
import pytest
from onnx.backend.test.case.node import collect_testcases

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime.session import Session

if os.environ.get("STRUCTOPT_REQUIRE_TORCH") == "1":
    import torch
else:
    torch = pytest.importorskip("torch", reason="needs torch: pip install '.[export]'")

from structopt_onnx.recovery.call import NotDifferentiableError
from structopt_onnx.recovery.student import OPERATORS, call_of

_OLDEST = 7
_TYPES = {np.dtype(t) for t in ("float32", "float64", "int64", "int32", "bool")}
# What a gradient can't go through, or goes through too seldom to be worth it.
_REFUSED = {
    "CumSum": ("exclusive or reversed",),
    "ConvTranspose": ("output_shape or auto_pad",),
    "Dropout": ("in training mode",),
    "BatchNormalization": ("in training mode",),
    "MaxPool": ("its indices are read",),
    "Pad": ("mode",),
    "Resize": ("mode", "coordinates"),
    "Cast": ("to a type that torch has not",),
    "GRU": ("layout 1",),
    "LSTM": ("layout 1",),
    "RNN": ("layout 1",),
}


@dataclass(frozen=True)
class Case:
    name: str
    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]


@cache
def _cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the test cases' own arithmetic overflows
        found = collect_testcases(None)
    kept = []
    for case in found:
        graph, model = case.model.graph, case.model
        if len(graph.node) != 1 or graph.node[0].op_type not in OPERATORS or graph.node[0].domain:
            continue
        if next((o.version for o in model.opset_import if not o.domain), 0) < _OLDEST:
            model = onnx.version_converter.convert_version(model, 13)
        arrays = [
            onnx.numpy_helper.to_array(a) if isinstance(a, onnx.TensorProto) else np.asarray(a)
            for a in case.data_sets[0][0]
        ]
        if "empty_set" not in case.name and all(a.dtype in _TYPES for a in arrays):
            names = [i.name for i in graph.input]
            kept.append(Case(case.name, model, dict(zip(names, arrays, strict=True))))
    return tuple(kept)


def _expected(case):
    """Return what onnxruntime makes of a case; None where it can't run it."""
    try:
        session = Session(case.model.SerializeToString(), optimize=False)
        found = session.run(case.inputs)
    except ModelError:
        return None
    return None if any(np.asarray(a).dtype not in _TYPES for a in found.values()) else found


def _made(case):
    """Return the outputs by name, or why there are none."""
    model = ir.from_proto(case.model)
    node = model.graph[0]
    inputs = [
        torch.from_numpy(case.inputs[i.name].copy()) if i is not None and i.name else None
        for i in node.inputs
    ]
    try:
        made = OPERATORS[node.op_type](call_of(node, model.opset_imports[""]), inputs)
    except NotDifferentiableError as error:
        return str(error)
    several = [made] if isinstance(made, torch.Tensor) else list(made)
    return {o.name: several[k] for k, o in enumerate(node.outputs) if o.name and k < len(several)}


@pytest.mark.parametrize("op_type", sorted(OPERATORS))
def test_agrees_with_onnxruntime(op_type):
    compared = 0
    for case in (c for c in _cases() if c.model.graph.node[0].op_type == op_type):
        expected = _expected(case)
        if expected is None:
            continue
        made = _made(case)
        if isinstance(made, str):
            assert any(why in made for why in _REFUSED.get(op_type, ())), (case.name, made)
            continue
        for name, wanted in expected.items():
            np.testing.assert_allclose(
                made[name].detach().numpy(), wanted, rtol=1e-4, atol=1e-5, err_msg=case.name
            )
        compared += 1
    assert compared
