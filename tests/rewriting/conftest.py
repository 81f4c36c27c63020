from __future__ import annotations

from collections.abc import Callable

import onnx.parser
import onnx_ir as ir
import pytest

from structopt_onnx.model.loading import load

Build = Callable[..., ir.Model]


@pytest.fixture(scope="session")
def build() -> Build:
    """Load a model from the ONNX text of its graph, and of functions after it."""

    def build(text: str, *, opset: int = 17, ir_version: int = 8) -> ir.Model:
        head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "my" : 1]>'
        return load(onnx.parser.parse_model(head + text))

    return build
