"""onnxruntime: sessions, observed shapes, paired benchmark.

Importing this package switches onnxruntime's telemetry off unless the user has set the variable;
it imports nothing heavy, so every module of the room can import onnxruntime after it.
"""

from __future__ import annotations

import os

# The wheels start a telemetry thread while they are imported: the variable must stand before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
