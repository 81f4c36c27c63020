"""Sizes and times as people write them."""

from __future__ import annotations

import math
import re

import typer

_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*", re.IGNORECASE)
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def memory(text: str) -> int:
    """Read a number of bytes: ``512M``, ``4G``, ``4GiB``, ``1.5gb``, ``1048576``.

    A unit is a power of 1024.
    """
    found = _NUMBER.fullmatch(text)
    unit = "" if found is None else re.sub(r"i?b$", "", found[2].lower())
    if found is None or unit not in _BYTES:
        raise typer.BadParameter(f"'{text}' is no size such as 512M or 4G")
    return math.floor(float(found[1]) * _BYTES[unit])


def seconds(text: str) -> float:
    """Read a time in seconds: ``90``, ``90s``, ``10m``, ``2h``."""
    found = _NUMBER.fullmatch(text)
    if found is None or found[2].lower() not in _SECONDS:
        raise typer.BadParameter(f"'{text}' is no time such as 90s, 10m or 2h")
    return float(found[1]) * _SECONDS[found[2].lower()]
