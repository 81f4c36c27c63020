from __future__ import annotations

from collections.abc import Callable

import onnx.parser
import onnx_ir as ir
import pytest

Build = Callable[..., ir.Model]


@pytest.fixture(scope="session")
def build() -> Build:
    """Build a model from the nodes of its main graph in ONNX text."""

    def build(
        nodes: str,
        *,
        inputs: str = "float[N,4] x",
        outputs: str = "float[N,4] y",
        constants: str = "",
        ir_version: int = 8,
    ) -> ir.Model:
        opsets = '"" : 17, "ai.onnx.ml" : 3'
        head = f"<ir_version: {ir_version}, opset_import: [{opsets}]>"
        text = f"{head} g ({inputs}) => ({outputs}) <{constants}> {{ {nodes} }}"
        return ir.from_proto(onnx.parser.parse_model(text))

    return build
