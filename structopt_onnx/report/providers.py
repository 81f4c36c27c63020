"""Models on providers, and the providers of a machine, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from structopt_onnx.report.figures import count, error, mebibytes, milliseconds, plural
from structopt_onnx.report.inputs import sizes
from structopt_onnx.report.layout import details, line, section, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from structopt_onnx.runtime.providers.table import (
        ProviderList,
        ProviderRow,
        ProviderTable,
    )

_MOST_OPERATORS = 8
_HEADERS = (
    "provider", "", "status", "nodes", "pieces", "graph ops", "context, MiB", "error", "max abs",
    "p50, ms",
)  # fmt: skip


def render_provider_table(found: ProviderTable) -> RenderableType:
    """Lay out what is true of one or two models on each provider."""
    names = [found.a] if found.b is None else [found.a, found.b]
    # By place: two models may have one name.
    rows = [("AB"[place % len(names)], row) for place, row in enumerate(found.rows)]
    return Group(*_parts(found, list(zip("AB", names, strict=False)), rows))


def render_provider_list(found: ProviderList) -> RenderableType:
    """Lay out what this machine can do with each provider."""
    rows = [(p.name, _short(p.status.text), p.package, p.takes) for p in found.providers]
    parts: list[RenderableType] = [table(("provider", "status", "package", "takes"), rows)]
    reasons = [(p.name, p.status.reason) for p in found.providers if p.status.reason]
    engines = [(p.name, p.engine) for p in found.providers if p.engine]
    parts += _lists(("Run by", engines), ("Unavailable", reasons))
    return Group(*parts)


def _parts(
    found: ProviderTable, named: list[tuple[str, str]], rows: list[tuple[str, ProviderRow]]
) -> Iterator[RenderableType]:
    yield line(", ".join(f"{letter}: {name}" for letter, name in named), "bold")
    origin = "made-up inputs" if found.synthetic else "inputs"
    yield line(f"{origin}: {sizes(found.shapes)}; errors are against the CPU in float32")
    yield table(_HEADERS, (_cells(letter, row) for letter, row in rows), range(3, len(_HEADERS)))
    times = [(name, result.summary()) for name, result in found.comparisons.items()]
    yield from _lists(
        ("Times", times),
        ("Memory", _said(rows, _memory)),
        ("Not timed", _said(rows, lambda row: row.not_timed)),
        ("Left on the CPU", _said(rows, _left)),
        ("Unavailable", _said(rows, lambda row: row.status.reason)),
        ("Run by", _said(rows, lambda row: row.engine)),
    )


def _cells(letter: str, row: ProviderRow) -> tuple[str, ...]:
    def number(value: int | None) -> str:
        return "-" if value is None else count(value)

    return (
        row.provider,
        letter,
        row.status.kind,
        "-" if row.nodes is None else f"{number(row.taken)} of {number(row.nodes)}",
        number(row.partitions),
        number(row.graph_ops),
        mebibytes(row.context_bytes),
        error(row.relative_error),
        error(row.max_abs),
        milliseconds(row.p50_ms),
    )


def _short(status: str) -> str:
    """Leave a reason to the list below the table."""
    return "unavailable" if status.startswith("unavailable") else status


def _said(
    rows: list[tuple[str, ProviderRow]], what: Callable[[ProviderRow], str]
) -> list[tuple[str, str]]:
    """Say it once per provider where it is the same of both models."""
    by_provider: dict[str, dict[str, list[str]]] = {}
    for letter, row in rows:
        text = what(row)
        if text:
            by_provider.setdefault(row.provider, {}).setdefault(text, []).append(letter)
    one = {letter for letter, _ in rows} == {"A"}
    return [
        (name if one or len(letters) > 1 else f"{name}, {letters[0]}", text)
        for name, texts in by_provider.items()
        for text, letters in texts.items()
    ]


def _left(row: ProviderRow) -> str:
    named = [
        operator if number is None else f"{number} {operator}"
        for operator, number in row.left.items()
    ]
    more = len(named) - _MOST_OPERATORS
    listed = ", ".join(named[:_MOST_OPERATORS])
    return listed + (f" and {plural(more, 'more operator')}" if more > 0 else "")


def _memory(row: ProviderRow) -> str:
    if row.peak_rss_bytes is None:
        return ""
    device = f", {mebibytes(row.device_bytes)} MiB on the device" if row.device_bytes else ""
    return f"{mebibytes(row.peak_rss_bytes)} MiB at most{device}"


def _lists(*parts: tuple[str, list[tuple[str, str]]]) -> list[RenderableType]:
    return [section(title, details(rows)) for title, rows in parts if rows]
