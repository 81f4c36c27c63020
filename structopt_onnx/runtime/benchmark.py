"""Is B faster than A: one process per comparison, replicates, a control, an honest verdict."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from structopt_onnx.errors import DataError, ModelError, UsageError
from structopt_onnx.runtime import machine
from structopt_onnx.runtime.comparison import Clock, Comparison, Deployed
from structopt_onnx.runtime.evaluation import Raw, evaluate, evaluate_deployed, probe_timing
from structopt_onnx.runtime.exchange import described, write_feeds
from structopt_onnx.runtime.file_size import model_file_bytes
from structopt_onnx.runtime.measuring import OVERTIME, WARM_UPS, Control, Plan, shortage
from structopt_onnx.runtime.options import CPU, Provider
from structopt_onnx.runtime.process import run_job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from structopt_onnx.runtime.session import Feeds

MIN_REPLICATES = 8
"""Fewer make the t-interval too wide to show anything."""

MIN_PAIRS = 8
MAX_FEEDS = 8

_PROBE_SHARE = 0.4
_LEAST_PROBE_SECONDS = 10.0
_START_SECONDS = 0.5
# The time that would have been enough is an estimate: this much more of it is asked for.
_MARGIN = 1.15
_DEPLOYED_SHARE = 0.25
_DEPLOYED_REPLICATES = 3
# A coarser clock can't time a sample of 2 ms to a percent.
_FINE_RESOLUTION = 1e-5


@dataclass(frozen=True)
class BenchmarkSettings:
    """How to measure.

    Attributes
    ----------
    seconds
        Time for all of it: the fresh processes that measure memory, and the comparison.
    replicates
        How often all sessions are created anew, at least 8.
    pairs
        Samples of each model in a replicate; fewer, but at least 8, where the time is short.
    threads
        Threads of the deployment, for the wall-clock numbers; the verdict uses one.
    seed
        Of the random orders.
    sample_ms
        A sample repeats the run until it lasts this long.
    libraries
        Shared libraries with custom operators.
    provider
        The execution provider.
    """

    seconds: float = 20.0
    replicates: int = 8
    pairs: int = 30
    threads: int = 1
    seed: int = 0
    sample_ms: float = 2.0
    libraries: tuple[Path, ...] = ()
    provider: Provider = CPU

    def __post_init__(self) -> None:
        """Refuse what would prove nothing."""
        for name, least in (("replicates", MIN_REPLICATES), ("pairs", MIN_PAIRS), ("threads", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")
        for name in ("seconds", "sample_ms"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be positive, not {getattr(self, name):g}")


def benchmark(
    a: Path,
    b: Path | None,
    feeds: Sequence[Feeds],
    settings: BenchmarkSettings | None = None,
) -> Comparison:
    """Measure model B against model A, or model A alone.

    Method: all sessions live in one process without garbage collector, one thread, no spinning
    threads, inputs and outputs bound. Every replicate creates them anew in random order (memory
    placement is a fixed bias of a session, up to 2 %), warms them up and times A, B and A again
    as a control in balanced random order, by the thread's CPU time. The statistic of a replicate
    is the median of log(tB / tA); the interval is Student's t over replicates.

    Parameters
    ----------
    a, b
        Model files; `b` may be `None`.
    feeds
        Inputs, at least one feed; at most 8 are used, taken in turns.
    settings
        How to measure.

    Returns
    -------
    Comparison
        With verdict "not measured" if the models are too slow for the time allowed.

    Raises
    ------
    ModelError
        If a model can't be loaded or run, or the measuring process dies.
    DataError
        If there are no feeds.
    UsageError
        If a custom operator library can't be loaded.
    """
    settings = settings or BenchmarkSettings()
    if not feeds:
        raise DataError(f"{a}: nothing to run it on; give at least one feed")
    for path in (a, b):
        if path is not None and not path.is_file():
            raise ModelError(f"{path}: no such model file")
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        feeds_path = Path(folder) / "feeds.npz"
        index = write_feeds(feeds_path, feeds[:MAX_FEEDS])
        run = _Run(a, b, settings, {"feeds": str(feeds_path), "feed_index": index})
        return replace(run.compare(), shapes=described(feeds[0]))


class _Run:
    """One call of `benchmark`: its clock runs from the start."""

    def __init__(
        self, a: Path, b: Path | None, settings: BenchmarkSettings, feeds: dict[str, Any]
    ) -> None:
        self.started = time.perf_counter()
        self.models = [a] if b is None else [a, b]
        self.settings = settings
        self.feeds = feeds
        self.clock = _clock(settings.provider)
        self.pressure = machine.cpu_pressure()

    def compare(self) -> Comparison:
        probes = [self._probe(path) for path in self.models]
        left = self.settings.seconds - self._elapsed() - _START_SECONDS
        deployed_s = left * _DEPLOYED_SHARE if self.settings.threads > 1 else 0.0
        control, obstacle, wanted = self._feasible(probes, left - deployed_s)
        result = None
        if not obstacle:
            job = self._compare_job(left - deployed_s, deployed_s, control)
            patience = left + max(_LEAST_PROBE_SECONDS, left / 2)
            names = " and ".join(map(str, self.models))
            result = run_job(job, patience, names, self.settings.provider.packages)
            if result is None:
                obstacle = f"no result after {patience:.0f} s"
            else:
                obstacle = result["verdict"]["too_slow"]
                wanted = result["verdict"]["needed_s"]
        record = self._record(probes, control, obstacle)
        if wanted:
            share = 1 - _DEPLOYED_SHARE if self.settings.threads > 1 else 1.0
            before = self.settings.seconds - left
            record = replace(record, needed_seconds=math.ceil(before + _MARGIN * wanted / share))
        if result is None or obstacle:
            return record
        return evaluate(record, result["verdict"], self._deployed(result))

    def _elapsed(self) -> float:
        return time.perf_counter() - self.started

    def _probe(self, path: Path) -> Raw | None:
        """Memory and first times of one model; `None` if it took too long."""
        patience = max(_PROBE_SHARE * self.settings.seconds, _LEAST_PROBE_SECONDS)
        job: dict[str, Any] = {"kind": "probe", "models": [str(path)], **self.feeds}
        job["settings"] = self._session(1, spinning=False)
        return run_job(job, patience, str(path), self.settings.provider.packages)

    def _session(self, threads: int, *, spinning: bool) -> dict[str, Any]:
        return {
            "threads": threads,
            "spinning": spinning,
            "libraries": [str(path) for path in self.settings.libraries],
            "provider": asdict(self.settings.provider),
        }

    def _compare_job(self, seconds: float, deployed_s: float, control: Control) -> dict[str, Any]:
        settings = self.settings
        plan = Plan(
            replicates=settings.replicates,
            pairs=settings.pairs,
            min_pairs=MIN_PAIRS,
            sample_ms=settings.sample_ms,
            seconds=seconds * (OVERTIME if control == "previous session" else 1),
            seed=settings.seed,
        )
        deployed = None
        if settings.threads > 1:
            deployed = {
                "settings": self._session(settings.threads, spinning=True),
                "plan": asdict(replace(plan, replicates=_DEPLOYED_REPLICATES, seconds=deployed_s)),
            }
        return {
            "kind": "compare",
            "models": [str(path) for path in self.models],
            "settings": self._session(1, spinning=False),
            "plan": asdict(plan),
            "control": control,
            "deployed": deployed,
            **self.feeds,
        }

    def _feasible(self, probes: Sequence[Raw | None], seconds: float) -> tuple[Control, str, float]:
        """Choose the control that the time allows; say what stands against measuring at all.

        Last come the seconds that would be enough, 0 where they are or nothing is known of them.
        """
        known = [probe for probe in probes if probe is not None]
        if len(known) < len(probes):
            slow = self.models[[probe is None for probe in probes].index(True)]
            return "none", f"{slow} did not load and run once in time", 0.0
        peaks = [probe["peak_rss_bytes"] for probe in (*known, known[0])]
        free = machine.available_memory()
        if free is not None and None not in peaks and sum(peaks) > free:
            lack = f"needs {sum(peaks) >> 20} MiB of memory, {free >> 20} MiB are free"
            return "none", lack, 0.0
        opening = [(probe["creation_ms"] + probe["first_run_ms"]) / 1e3 for probe in known]
        run_ms = [min(probe["wall_ms"]) for probe in known]
        warming = WARM_UPS * sum(run_ms) / 1e3
        pair = sum(max(ms, self.settings.sample_ms) for ms in (*run_ms, run_ms[0])) / 1e3
        replicates = self.settings.replicates
        kept = replicates * (sum(opening) + warming + MIN_PAIRS * pair)
        fresh = kept + replicates * (opening[0] + WARM_UPS * run_ms[0] / 1e3)
        if fresh <= seconds:
            return "fresh session", "", 0.0
        if kept <= seconds * OVERTIME:
            return "previous session", "", 0.0
        return "none", shortage(replicates, kept, seconds), kept

    def _record(self, probes: Sequence[Raw | None], control: Control, obstacle: str) -> Comparison:
        """Write down everything that is known without paired samples."""
        timings = [
            probe_timing(probe, model_file_bytes(path), self.clock)
            for probe, path in zip(probes, self.models, strict=True)
        ]
        return Comparison(
            a=timings[0],
            b=timings[1] if len(timings) > 1 else None,
            ratio=None,
            low=None,
            high=None,
            control_ratio=None,
            control_spread=None,
            control=control,
            verdict="not measured",
            reason=obstacle,
            clock=self.clock,
            deployed=None,
            replicates=0,
            pairs=0,
            feeds=len(self.feeds["feed_index"]),
            seconds=self._elapsed(),
            provider=self.settings.provider.name,
            machine=machine.current(),
        )

    def _deployed(self, result: Raw) -> Deployed | None:
        # With one thread the verdict's own samples are the deployment's.
        samples = result["verdict" if self.settings.threads == 1 else "deployed"]
        if not samples["wall_ms"]:  # its share of the time was too short
            return None
        pressures = [self.pressure, machine.cpu_pressure()]
        return evaluate_deployed(
            samples["wall_ms"], self.settings.threads, pressures, paired=len(self.models) > 1
        )


def _clock(provider: Provider) -> Clock:
    """Pick the clock of the verdict: CPU time where the calling thread does all the work."""
    fine = time.get_clock_info("thread_time").resolution <= _FINE_RESOLUTION
    return "thread CPU time" if provider.name == CPU.name and fine else "wall"
