"""`providers` and `compare_providers`: models on execution providers, told as it is."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.loading import load
from structopt_onnx.runtime import machine
from structopt_onnx.runtime.benchmark import BenchmarkSettings, benchmark
from structopt_onnx.runtime.coverage import Coverage
from structopt_onnx.runtime.exchange import described
from structopt_onnx.runtime.providers.catalogue import PROVIDERS, ProviderSpec, provider_spec
from structopt_onnx.runtime.providers.probe import probe_feed, probe_model
from structopt_onnx.runtime.providers.running import prepare, run_provider, variable
from structopt_onnx.runtime.providers.status import Status, Unavailable
from structopt_onnx.runtime.providers.table import (
    ProbedProvider,
    ProviderList,
    ProviderRow,
    ProviderTable,
)
from structopt_onnx.validation.provider_values import judge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structopt_onnx.model.loading import Source
    from structopt_onnx.runtime.comparison import Comparison, Timing
    from structopt_onnx.runtime.providers.case import Case
    from structopt_onnx.runtime.providers.ran import Ran
    from structopt_onnx.runtime.session import Feeds

# Quantized arithmetic may round a step up where another engine rounds it down.
_QUANTIZED = 5e-2
_QUANTIZING = ("QuantizeLinear", "QLinear", "DynamicQuantize")


@dataclass(frozen=True)
class _Wanted:
    """A provider as asked for: ``name`` or ``name=folder``."""

    spec: ProviderSpec
    packages: str

    @classmethod
    def of(cls, text: str) -> _Wanted:
        name, _, folder = text.partition("=")
        if folder and not Path(folder).is_dir():
            raise UsageError(f"{text}: no such folder")
        return cls(provider_spec(name), str(Path(folder).resolve()) if folder else "")

    @property
    def folder(self) -> str:
        """Where its packages are, by the environment where it is not said; empty for nowhere."""
        return self.packages or os.environ.get(variable(self.spec), "")


def providers(names: Sequence[str] = ()) -> ProviderList:
    """Say which execution providers can really be used here: a tiny model is run on each.

    Parameters
    ----------
    names
        Which, as in `compare_providers`; all that are known without any.

    Returns
    -------
    ProviderList
        With the status of each.

    Raises
    ------
    UsageError
        When a name or a folder is not known.
    """
    wanted = [_Wanted.of(name) for name in (names or PROVIDERS)]
    case = prepare(load(probe_model()), [probe_feed()])
    return ProviderList(tuple(_probed(case, one) for one in wanted), machine.current())


def compare_providers(
    a: Source,
    b: Source | None = None,
    *,
    providers: Sequence[str],
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    seconds: float = 20.0,
    replicates: int = 8,
    threads: int = 1,
    seed: int = 0,
    libraries: Sequence[Path] = (),
    progress: Callable[[str], None] = lambda _: None,
) -> ProviderTable:
    """Run one or two models on execution providers and say what is true of each.

    A provider counts as used only where onnxruntime says that it has nodes, and where the values
    are those of the CPU. Times are of providers that run on the device that they are for;
    simulators and other runtimes have none.

    Parameters
    ----------
    a, b
        Path, bytes, `onnx.ModelProto` or `onnx_ir.Model`. Every provider gets copies whose
        shapes are fixed to those of the first sample.
    providers
        Names, such as ``qnn``; with ``=folder`` what the provider needs is looked for there: a
        folder made by ``pip install --target``, for ``xnnpack`` one with ``node_modules``, for
        any of them one with an Android build's ``onnxruntime_perf_test``, which is then run on
        an attached phone.
    data
        Inputs: an npz file, a folder, ``module:factory``, arrays by input name, or feeds. None
        makes some up.
    seconds, replicates, threads, seed, libraries
        Of the paired benchmark, on each provider that is timed, as in `benchmark`.
    progress
        Called with a line about what happens now.

    Returns
    -------
    ProviderTable
        What can't be run is a row with its reason, never an error.

    Raises
    ------
    ModelError
        When a model can't be read, run on the CPU, or brought to fixed shapes.
    DataError
        When the data does not fit model A.
    UsageError
        For an unknown provider or a wrong setting.
    """
    wanted = [_Wanted.of(name) for name in providers]
    settings = BenchmarkSettings(
        seconds=seconds,
        replicates=replicates,
        threads=threads,
        seed=seed,
        libraries=tuple(libraries),
    )
    first = open_source(a)
    opened = [first] if b is None else [first, open_source(b)]
    samples = samples_for(first, data, seed=seed, threads=threads, libraries=libraries)
    feeds = [samples[place] for place in range(len(samples))]
    cases = [_prepared(one, feeds, libraries) for one in opened]
    rows: list[ProviderRow] = []
    comparisons: dict[str, Comparison] = {}
    for number, one in enumerate(wanted):
        progress(f"{one.spec.name} {number + 1}/{len(wanted)}")
        found = [_row(case, one, model.name) for case, model in zip(cases, opened, strict=True)]
        timed = [place for place, row in enumerate(found) if _is_timed(one.spec, row)]
        if timed:
            own = replace(one.spec.provider, packages=one.folder)
            try:
                result = _times([cases[place] for place in timed], replace(settings, provider=own))
            except ModelError as error:
                for place in timed:
                    found[place] = replace(found[place], not_timed=str(error))
            else:
                for place, timing in zip(timed, (result.a, result.b), strict=False):
                    found[place] = _with_times(found[place], timing, result.reason)
                if len(timed) > 1:
                    comparisons[one.spec.name] = result
        rows += found
    names = [one.name for one in opened]
    return ProviderTable(
        a=names[0],
        b=names[1] if b is not None else None,
        rows=tuple(rows),
        shapes=described(cases[0].feeds[0]),
        synthetic=samples.synthetic,
        comparisons=comparisons,
        machine=machine.current(),
    )


def _prepared(opened: Opened, feeds: Sequence[Feeds], libraries: Sequence[Path]) -> Case:
    try:
        return prepare(opened.model, feeds, libraries)
    except Unavailable as error:
        raise ModelError(f"{opened.name}: {error}") from error


def _probed(case: Case, wanted: _Wanted) -> ProbedProvider:
    spec = wanted.spec
    row = _row(case, wanted, "probe")
    return ProbedProvider(
        spec.name, spec.key, row.status, row.engine, spec.package, spec.takes, variable(spec)
    )


def _row(case: Case, wanted: _Wanted, model: str) -> ProviderRow:
    spec = wanted.spec
    try:
        found = run_provider(case, spec, wanted.folder)
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
    quantized = any(n.op_type.startswith(_QUANTIZING) for n in case.proto.graph.node)
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


def _is_timed(spec: ProviderSpec, row: ProviderRow) -> bool:
    """Whether the paired benchmark is run: not for a simulator, nor where there are times."""
    return spec.timed and row.status.kind in {"executed", "partial"} and not row.runs


def _times(cases: Sequence[Case], settings: BenchmarkSettings) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-") as folder:
        paths = list(_written(cases, Path(folder)))
        return benchmark(paths[0], paths[1] if len(paths) > 1 else None, cases[0].feeds, settings)


def _written(cases: Sequence[Case], folder: Path) -> Iterator[Path]:
    for number, case in enumerate(cases):
        path = folder / f"{number}.onnx"
        onnx.save(case.proto, path)
        yield path


def _with_times(row: ProviderRow, timing: Timing | None, reason: str) -> ProviderRow:
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
