"""`providers` and `compare_providers`: models on execution providers, told as it is."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.inputs import Opened, open_source, samples_for
from structopt_onnx.api.progress import logged
from structopt_onnx.api.provider_rows import provider_row, with_times
from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.loading import load
from structopt_onnx.runtime import machine
from structopt_onnx.runtime.benchmark import MAX_FEEDS, BenchmarkSettings, benchmark
from structopt_onnx.runtime.exchange import described
from structopt_onnx.runtime.providers.catalogue import PROVIDERS, ProviderSpec, provider_spec
from structopt_onnx.runtime.providers.probe import probe_feed, probe_model
from structopt_onnx.runtime.providers.running import prepare, variable
from structopt_onnx.runtime.providers.status import Unavailable
from structopt_onnx.runtime.providers.table import (
    ProbedProvider,
    ProviderList,
    ProviderRow,
    ProviderTable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structopt_onnx.model.loading import Source
    from structopt_onnx.runtime.comparison import Comparison
    from structopt_onnx.runtime.providers.case import Case
    from structopt_onnx.runtime.session import Feeds


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
    with _folder() as folder:
        case = prepare(load(probe_model()), [probe_feed()], folder / "probe.onnx")
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
    feeds = [samples[place] for place in range(min(len(samples), MAX_FEEDS))]
    with _folder() as folder:
        cases = [
            _prepared(one, feeds, folder / f"{number}.onnx", libraries)
            for number, one in enumerate(opened)
        ]
        rows, comparisons = _rows(cases, opened, wanted, settings, logged(progress))
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


def _rows(
    cases: Sequence[Case],
    opened: Sequence[Opened],
    wanted: Sequence[_Wanted],
    settings: BenchmarkSettings,
    say: Callable[[str], None],
) -> tuple[list[ProviderRow], dict[str, Comparison]]:
    """Run the models on each provider, and time them together where they ran."""
    rows: list[ProviderRow] = []
    comparisons: dict[str, Comparison] = {}
    for number, one in enumerate(wanted):
        say(f"{one.spec.name} {number + 1}/{len(wanted)}")
        found = [
            provider_row(case, one.spec, one.folder, model.name)
            for case, model in zip(cases, opened, strict=True)
        ]
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
                    found[place] = with_times(found[place], timing, result.reason)
                if len(timed) > 1:
                    comparisons[one.spec.name] = result
        rows += found
    return rows, comparisons


def _prepared(
    opened: Opened, feeds: Sequence[Feeds], path: Path, libraries: Sequence[Path]
) -> Case:
    try:
        return prepare(opened.model, feeds, path, libraries)
    except Unavailable as error:
        raise ModelError(f"{opened.name}: {error}") from error


def _probed(case: Case, wanted: _Wanted) -> ProbedProvider:
    spec = wanted.spec
    row = provider_row(case, spec, wanted.folder, "probe")
    return ProbedProvider(
        spec.name, spec.key, row.status, row.engine, spec.package, spec.takes, variable(spec)
    )


def _is_timed(spec: ProviderSpec, row: ProviderRow) -> bool:
    """Whether the paired benchmark is run: not for a simulator, nor where there are times."""
    return spec.timed and row.status.kind in {"executed", "partial"} and not row.runs


def _times(cases: Sequence[Case], settings: BenchmarkSettings) -> Comparison:
    paths = [case.path for case in cases]
    return benchmark(paths[0], paths[1] if len(paths) > 1 else None, cases[0].feeds, settings)


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder for what every provider gets."""
    with tempfile.TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as name:
        yield Path(name)
