"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math

from structopt_onnx.runtime.comparison import three_digits

_MIB = 1 << 20
_LONGEST_NAME = 48


def count(number: float) -> str:
    """Write a whole number with separators: ``288,891``."""
    return f"{number:,.0f}"


def change(before: float, after: float) -> str:
    """Write how much a figure changed: ``-51.1%``, ``same``, or ``+3`` where it was 0."""
    if before == after:
        return "same"
    if before == 0:
        return f"+{count(after)}"
    percent = 100 * (after - before) / before
    # Rounding must not make a small change read as none, nor a large one as all.
    lies = {0.0} if after == 0 else {0.0, 100.0}
    digits = next((n for n in (1, 2, 3) if abs(round(percent, n)) not in lies), 4)
    return f"{percent:+.{digits}f}%"


def error(value: float | None) -> str:
    """Write an error with three digits; ``-`` where there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "infinite" if value > 0 else "?"
    return f"{value:.3g}"


def milliseconds(value: float | None) -> str:
    """Write a time with three digits; ``-`` where it was not measured."""
    return "-" if value is None else three_digits(value)


def mebibytes(value: int | None) -> str:
    """Write bytes as MiB; ``-`` where they were not measured."""
    return "-" if value is None else f"{value / _MIB:,.1f}"


def plural(number: int, noun: str) -> str:
    """Write a number of things: ``1 patch``, ``2 patches``."""
    if number == 1:
        return f"1 {noun}"
    return f"{count(number)} {noun}{'es' if noun.endswith(('ch', 's', 'x')) else 's'}"


def shown(text: str) -> str:
    """Make text from a model's file safe to print: one line, no control characters."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def name(text: str, longest: int = _LONGEST_NAME) -> str:
    """Shorten the name of a node or weight in the middle; ``-`` where it is empty."""
    safe = shown(text)
    if len(safe) <= longest:
        return safe or "-"
    head = (longest - 3) // 2
    return f"{safe[:head]}...{safe[head + 3 - longest :]}"
