"""Factorizations on plain arrays; no ONNX in here."""
