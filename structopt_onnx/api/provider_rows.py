"""What is known of one model on one provider, as a row of a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from structopt_onnx.runtime.coverage import Coverage
from structopt_onnx.runtime.providers.running import run_provider
from structopt_onnx.runtime.providers.status import Status, Unavailable
from structopt_onnx.runtime.providers.table import ProviderRow
from structopt_onnx.validation.provider_values import judge

if TYPE_CHECKING:
    from structopt_onnx.runtime.comparison import Timing
    from structopt_onnx.runtime.providers.case import Case
    from structopt_onnx.runtime.providers.catalogue import ProviderSpec
    from structopt_onnx.runtime.providers.ran import Ran

# Quantized arithmetic may round a step up where another engine rounds it down.
_QUANTIZED = 5e-2
_QUANTIZING = ("QuantizeLinear", "QLinear", "DynamicQuantize")


def provider_row(case: Case, spec: ProviderSpec, packages: str, model: str) -> ProviderRow:
    """Run a model on a provider, or ask its lists, and say what that proves.

    Parameters
    ----------
    case
        The model.
    spec
        The provider.
    packages
        The folder with what it needs; empty takes what is installed.
    model
        Display name of the model.

    Returns
    -------
    ProviderRow
        Without times, but for those that a phone has measured.
    """
    try:
        found = run_provider(case, spec, packages)
    except Unavailable as error:
        return ProviderRow(spec.name, model, Status("unavailable", reason=str(error)))
    if isinstance(found, Coverage):
        return _predicted(found, spec.name, model)
    return _executed(found, case, spec, model)


def _predicted(found: Coverage, name: str, model: str) -> ProviderRow:
    return ProviderRow(
        provider=name,
        model=model,
        status=Status("predicted", found.supported, found.nodes),
        engine="lists of operators",
        nodes=found.nodes,
        taken=found.supported,
        partitions=found.partitions,
        left=dict.fromkeys(found.unsupported),
    )


def _executed(found: Ran, case: Case, spec: ProviderSpec, model: str) -> ProviderRow:
    quantized = any(n.op_type.startswith(_QUANTIZING) for n in case.model.graph)
    judged = judge(found, case.expected, max(spec.tolerance, _QUANTIZED * quantized))
    row = ProviderRow(spec.name, model, judged.status, found.engine)
    if not judged.status.ran:
        return row  # what was counted and measured of it is not the model's
    times = found.times_ms
    p50, p90 = np.percentile(times, [50, 90]) if times else (None, None)
    return replace(
        row,
        nodes=found.placement.nodes,
        taken=found.placement.on_provider,
        partitions=found.placement.partitions,
        left=found.placement.left,
        graph_ops=found.graph_ops,
        context_bytes=found.context_bytes,
        max_abs=judged.max_abs,
        relative_error=judged.relative_error,
        p50_ms=None if p50 is None else float(p50),
        p90_ms=None if p90 is None else float(p90),
        minimum_ms=min(times, default=None),
        runs=len(times),
    )


def with_times(row: ProviderRow, timing: Timing | None, reason: str) -> ProviderRow:
    """Fill in what the paired benchmark measured, or why it did not."""
    if timing is None or timing.p50 is None:
        return replace(row, not_timed=reason)
    return replace(
        row,
        p50_ms=timing.p50,
        p90_ms=timing.p90,
        minimum_ms=timing.minimum,
        runs=timing.n,
        peak_rss_bytes=timing.peak_rss_bytes,
        device_bytes=timing.device_bytes,
    )
