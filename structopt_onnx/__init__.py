"""Structural optimization of ONNX models for edge deployment, proved and measured."""

from __future__ import annotations

from pathlib import Path

__version__ = "0.1.0"

# Straight from a checkout, passes/ lies beside this folder; installed, it lies inside it.
if not (Path(__file__).parent / "passes").is_dir():
    __path__.append(str(Path(__file__).parent.parent))
