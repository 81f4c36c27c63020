"""What is known of the models on execution providers, in columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from structopt_onnx.report.figures import count, error, mebibytes, milliseconds
from structopt_onnx.report.grid import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from structopt_onnx.report.record import Report
    from structopt_onnx.runtime.coverage import Coverage


class ProviderRow(Protocol):
    """One model on one provider; what is not known is None or not there.

    Its JSON form has ``provider``, ``model``, ``status`` (whether it was executed, simulated or
    predicted: text, or an object with it as ``text``), ``engine``, numbers of ``nodes``, of those
    ``taken`` and of ``partitions``, ``graph_ops`` and ``context_bytes`` of what was compiled,
    ``relative_error`` from the CPU's outputs, ``p50_ms``, ``p90_ms``, ``peak_rss_bytes``, and why
    it was ``not_timed``.
    """

    def to_json(self) -> Mapping[str, Any]:
        """Return it as plain data."""
        ...


def _status(status: object) -> str:
    return str(status["text"] if isinstance(status, Mapping) else status)


_COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("provider", "provider", str),
    ("model", "model", str),
    ("status", "status", _status),
    ("nodes", "nodes", count),
    ("of them taken", "taken", count),
    ("partitions", "partitions", count),
    ("compiled operators", "graph_ops", count),
    ("compiled, bytes", "context_bytes", count),
    ("error", "relative_error", error),
    ("p50, ms", "p50_ms", milliseconds),
    ("p90, ms", "p90_ms", milliseconds),
    ("peak memory, MiB", "peak_rss_bytes", mebibytes),
    ("engine", "engine", str),
    ("not timed", "not_timed", str),
)
_TEXT = {"provider", "model", "status", "engine", "not timed"}


def provider_grid(rows: Sequence[ProviderRow], report: Report) -> Grid:
    """Put every model and provider in a row.

    Parameters
    ----------
    rows
        What was run, simulated or predicted.
    report
        Its predicted coverage of a target stands in where there are no rows.
    """
    found = [row.to_json() for row in rows] or [*_predicted(report)]
    known = [
        (header, key, write)
        for header, key, write in _COLUMNS
        if any(row.get(key) not in (None, "") for row in found)
    ]
    cells = tuple(
        tuple("-" if row.get(key) in (None, "") else write(row[key]) for _, key, write in known)
        for row in found
    )
    headers = tuple(header for header, _, _ in known)
    numbers = tuple(n for n, header in enumerate(headers) if header not in _TEXT)
    return Grid(headers, cells, numbers)


def _predicted(report: Report) -> list[Mapping[str, Any]]:
    both = ("before", report.coverage_before), ("after", report.coverage_after)
    return [_covered(model, coverage) for model, coverage in both if coverage is not None]


def _covered(model: str, coverage: Coverage) -> Mapping[str, Any]:
    return {
        "provider": coverage.target,
        "model": model,
        "status": coverage.basis,
        "nodes": coverage.nodes,
        "taken": coverage.supported,
        "partitions": coverage.partitions,
    }
