"""The replay record: what was applied to a model, short enough to travel in its metadata."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import structopt_onnx
from structopt_onnx.api.options import OptimizeOptions
from structopt_onnx.errors import UsageError
from structopt_onnx.rewriting.pipeline import pipeline_text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from structopt_onnx.api.bench import Bench
    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.rewriting.record import Applied

RECORD_KEY = "structopt_onnx.record"
"""Key in a saved model's `metadata_props` of what `encode` returns."""

SCHEMA = 2
"""Version of the record; raised when what is in it changes. 1 spelled every pipeline out."""

# What decides which rewrites are found; the rest is about measuring and writing.
_OPTIONS = (
    "max_error",
    "minimize",
    "sparse_format",
    "target",
    "only",
    "skip",
    "seed",
    "threads",
    "max_memory",
    "allow_synthetic",
)


@dataclass(frozen=True)
class LossyStep:
    """An option that was applied: name of the pass, sorted weights, label."""

    step: str
    site: tuple[str, ...]
    option: str


@dataclass(frozen=True)
class Data:
    """The samples that a run had.

    Parameters
    ----------
    origin
        Name of the file, folder or factory.
    synthetic
        Whether they were made up.
    count, fit
        Samples in all, and in the part that lossy rewrites were fitted on.
    fingerprint
        Of all samples, hexadecimal; empty where nothing was fitted.
    """

    origin: str
    synthetic: bool
    count: int
    fit: int = 0
    fingerprint: str = ""


@dataclass(frozen=True)
class ReplayRecord:
    """Everything needed to apply the rewrites of a run once more.

    Parameters
    ----------
    version
        Of this package.
    pipeline
        Pipeline text of all steps; None for the whole catalogue, which another version may have
        changed: the digest tells.
    options
        Those that decide what is found, where they are not the defaults.
    deny
        Steps that were rolled back.
    before, lossy, after
        What was applied, in order: exact steps (name and number in a row), options of lossy
        passes, exact steps again.
    fitted_after
        Number of exact patches in the model that lossy rewrites were fitted on; applied they may
        be without those.
    digest
        Of every patch's step, title and node: a replay that differs is noticed.
    data
        The samples.
    """

    version: str
    pipeline: str | None
    options: dict[str, Any]
    deny: tuple[str, ...]
    before: tuple[tuple[str, int], ...]
    lossy: tuple[LossyStep, ...]
    after: tuple[tuple[str, int], ...]
    fitted_after: int
    digest: str
    data: Data

    @property
    def exact_count(self) -> int:
        """Return the number of exact patches before the first lossy one."""
        return sum(number for _, number in self.before)

    @property
    def count(self) -> int:
        """Return the number of all patches."""
        return self.exact_count + len(self.lossy) + sum(number for _, number in self.after)

    def run_options(self, libraries: tuple[Path, ...] = ()) -> OptimizeOptions:
        """Return the options of a run that replays; errors as of a damaged record."""
        given: dict[str, Any] = dict(self.options)
        for name in {"only", "skip"} & set(given):
            given[name] = tuple(given[name])
        return OptimizeOptions(passes=self.pipeline, libraries=libraries, benchmark=False, **given)


def encode(
    bench: Bench,
    applied: Sequence[Applied],
    deny: frozenset[str] = frozenset(),
    *,
    fitted_after: int | None = None,
) -> str:
    """Write down what was applied, as JSON on one line.

    Parameters
    ----------
    bench
        The run.
    applied
        Every patch and library step, in order: exact, lossy, exact again.
    deny
        Steps that were rolled back.
    fitted_after
        Number of exact patches in the model that lossy rewrites were fitted on; None means those
        applied before them.
    """
    lossy = [k for k, entry in enumerate(applied) if entry.option is not None]
    start, stop = (lossy[0], lossy[-1] + 1) if lossy else (len(applied), len(applied))
    samples = bench.samples
    data = Data(samples.origin, samples.synthetic, len(samples))
    if lossy and not bench.blind:
        data = replace(data, fit=len(samples.split()[0]), fingerprint=fingerprint(samples))
    defaults = OptimizeOptions()
    options = {
        name: value
        for name in _OPTIONS
        if (value := getattr(bench.options, name)) != getattr(defaults, name)
    }
    if bench.options.objective != defaults.objective:
        options["minimize"] = bench.options.objective
    record = ReplayRecord(
        version=structopt_onnx.__version__,
        pipeline=None if bench.options.passes is None else pipeline_text(bench.options.steps()),
        options=options,
        deny=tuple(sorted(deny)),
        before=_runs(applied[:start]),
        lossy=tuple(LossyStep(a.step, a.site, a.option or "") for a in applied[start:stop]),
        after=_runs(applied[stop:]),
        fitted_after=start if fitted_after is None or not lossy else fitted_after,
        digest=digest(applied),
        data=data,
    )
    return json.dumps({"schema": SCHEMA, **asdict(record)}, separators=(",", ":"), sort_keys=True)


def decode(text: str, name: str = "the model") -> ReplayRecord:
    """Read a record back.

    Parameters
    ----------
    text
        What `encode` returned.
    name
        The model it was found in, for the message.

    Raises
    ------
    UsageError
        When the text is no such record, or one of a newer version.
    """
    try:
        raw = json.loads(text)
        schema, version = raw.pop("schema"), str(raw["version"])
        if schema in (1, SCHEMA):
            return _read(raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{name}: its record of rewrites is damaged; optimize the original again"
        ) from error
    raise UsageError(
        f"{name}: its record of rewrites is of version {version} of structopt-onnx; use that one"
    )


def _read(raw: dict[str, Any]) -> ReplayRecord:
    if set(raw) != {field.name for field in fields(ReplayRecord)}:
        raise ValueError("wrong keys")
    raw["before"] = tuple((str(step), int(number)) for step, number in raw["before"])
    raw["after"] = tuple((str(step), int(number)) for step, number in raw["after"])
    raw["lossy"] = tuple(
        LossyStep(entry["step"], tuple(entry["site"]), entry["option"]) for entry in raw["lossy"]
    )
    raw["deny"] = tuple(raw["deny"])
    raw["fitted_after"] = int(raw["fitted_after"])
    raw["data"] = Data(**raw["data"])
    if not set(raw["options"]) <= set(_OPTIONS):
        raise ValueError("unknown options")
    return ReplayRecord(**raw)


def fingerprint(samples: Samples) -> str:
    """Return a digest of all samples and of the sources they are split by; 32 hex digits."""
    state = hashlib.sha256()
    if samples.sources is not None:
        state.update(repr(samples.sources.tolist()).encode())
    for feeds in samples:
        for name, array in sorted(feeds.items()):
            state.update(repr((name, array.dtype.str, array.shape)).encode())
            texts = array.dtype.kind in "OU"
            state.update(repr(array.tolist()).encode() if texts else array.tobytes())
    return state.hexdigest()[:32]


def digest(applied: Sequence[Applied]) -> str:
    """Return a digest of what was done where, in order; 16 hex digits."""
    told = [(a.step, a.title, a.node, a.site, a.option) for a in applied]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def _runs(applied: Sequence[Applied]) -> tuple[tuple[str, int], ...]:
    return tuple((step, len(list(run))) for step, run in groupby(a.step for a in applied))
