from __future__ import annotations

import re
from pathlib import Path

import onnx_ir as ir
import onnxruntime
import pytest

from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.operator_tables import COREML, NNAPI, QNN
from structopt_onnx.rewriting.target import TARGETS

_LISTS = Path(onnxruntime.__file__).parent / "tools/mobile_helpers"
# How onnxruntime's list spells an operator that does not exist.
_MISSPELT = {"Argmax": "ArgMax"}


@pytest.mark.parametrize(
    ("table", "file"),
    [
        (NNAPI, "nnapi_supported_ops.md"),
        (COREML, "coreml_supported_mlprogram_ops.md"),
    ],
)
def test_a_table_is_what_onnxruntime_lists(table: frozenset[str], file: str):
    text = (_LISTS / file).read_text(encoding="utf-8")
    rows = re.findall(r"^\|(ai\.onnx|com\.microsoft):(\w+)\|", text, re.MULTILINE)
    listed = {
        _MISSPELT.get(name, name) if domain == "ai.onnx" else f"{domain}:{name}"
        for domain, name in rows
    }
    assert len(listed) > 40
    assert table == listed


@pytest.mark.parametrize("table", [NNAPI, COREML, QNN])
def test_tables_name_operators_that_exist(table: frozenset[str]):
    from onnx.defs import get_all_schemas_with_history  # noqa: PLC0415 - only here

    known = {schema.name for schema in get_all_schemas_with_history()}
    assert {name for name in table if ":" not in name} <= known


@pytest.mark.parametrize("name", ["nnapi", "coreml", "qnn"])
@pytest.mark.parametrize("op_type", ["RNN", "GRU", "LSTM", "Loop", "Scan"])
def test_mobile_targets_have_no_recurrence(name: str, op_type: str):
    target = TARGETS[name]
    assert target.name == name
    assert not target.supports(op_type, 17, ir.DataType.FLOAT)
    assert target.supports("Gemm", 17, ir.DataType.FLOAT)
    assert not target.supports("Gemm", 17, ir.DataType.DOUBLE)
    assert not target.is_measured
    assert target.seconds(Cost(macs=10**6, nodes=1)) > 0


def test_the_cpu_has_everything_but_recurrence_in_float64():
    target = TARGETS["cpu"]
    assert target.is_measured
    assert target.supports("LSTM", 17, ir.DataType.FLOAT)
    assert target.supports("LSTM", 17, ir.DataType.FLOAT16)
    assert target.supports("Gemm", 17, ir.DataType.DOUBLE)
    assert not target.supports("LSTM", 17, ir.DataType.DOUBLE)
