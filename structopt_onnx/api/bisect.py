"""`bisect`: the first rewrite that takes an optimized model's error over the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.bench import Bench, prepare
from structopt_onnx.api.exact import first_bad
from structopt_onnx.api.inputs import Opened, open_source, sample_report, samples_for
from structopt_onnx.api.progress import logged
from structopt_onnx.api.replay import RECORD_KEY, Replay, ReplayRecord, decode, digest, fingerprint
from structopt_onnx.errors import DataError, UsageError
from structopt_onnx.validation.models import ModelValidation, validate_models

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.calibration.samples import Samples
    from structopt_onnx.model.loading import Source
    from structopt_onnx.report.record import SampleReport
    from structopt_onnx.rewriting.record import Applied


@dataclass(frozen=True)
class Bisection:
    """Which rewrite is to blame.

    Parameters
    ----------
    source, optimized
        Display names of the models.
    samples
        The inputs they were run on.
    max_error
        The limit; None allows rounding only.
    culprit
        The first rewrite that takes the error over the limit; None when none does.
    failure
        What is wrong with the optimized model; None when it is within the limit. Without a
        culprit its rewrites are not to blame: the file was changed after it was made.
    error
        Largest error of any output: with the culprit, else of the optimized model.
    patches
        Rewrites on record.
    evaluations
        How many models were compared with the source.
    """

    source: str
    optimized: str
    samples: SampleReport
    max_error: float | None
    culprit: Applied | None
    failure: str | None
    error: float
    patches: int
    evaluations: int


def bisect(
    source: Source,
    optimized: Source,
    *,
    data: Any | None = None,  # noqa: ANN401 - a path, a factory, arrays or feeds
    max_error: float | None = None,
    seed: int = 0,
    threads: int = 1,
    libraries: Sequence[Path] = (),
    calibration: Any | None = None,  # noqa: ANN401 - likewise
    progress: Callable[[str], None] = lambda _: None,
) -> Bisection:
    """Find the first rewrite that breaks the budget, by replaying the record of a model.

    Nothing is planned anew: the rewrites that `optimize` noted in the model's metadata are
    applied to the source again, fewer or more of them.

    Parameters
    ----------
    source
        The original.
    optimized
        What `optimize` made of it.
    data
        Inputs to compare on. None takes the part of the calibration data that `optimize` judges
        by, or makes some up where there are none.
    max_error
        Largest relative L2 error per output. None takes the budget of the recorded run, and
        rounding where it made no lossy rewrites; a run with a share to keep or a metric alone has
        none.
    seed
        Of made-up inputs to compare on.
    threads, libraries
        Of the sessions: threads inside one operator, shared libraries with custom operators.
    calibration
        What `optimize` was given; needed where lossy rewrites were fitted to it.
    progress
        Called with a line about what happens now.

    Returns
    -------
    Bisection
        The culprit, or none.

    Raises
    ------
    UsageError
        When `optimized` carries no record, the calibration data or a limit on the error is
        missing, or the record does not lead from `source` to `optimized`.
    DataError
        When the calibration data is not that of the recorded run.
    ModelError
        When a model can't be read or run.
    """
    made = open_source(optimized)
    record = _record(made)
    options = record.run_options(tuple(libraries))
    needed = bool(record.data.fingerprint) and not record.data.synthetic
    if needed and calibration is None:
        raise UsageError(
            f"{made.name}: lossy rewrites were fitted to {_data(record)}; give it as calibration"
        )
    bench = prepare(
        source, options, None if record.data.synthetic else calibration, logged(progress)
    )
    if record.data.fingerprint and fingerprint(bench.samples) != record.data.fingerprint:
        raise DataError(
            f"{bench.samples.origin}: is not what {made.name} was made with, {_data(record)}"
        )
    original = Opened(bench.name, bench.model, bench.reference)
    if data is None and calibration is not None and not bench.samples.synthetic:
        judged = bench.samples.split()[2] if record.lossy else bench.samples
    else:
        judged = samples_for(original, data, seed=seed, threads=threads, libraries=libraries)
    if max_error is None and record.lossy:
        max_error = options.max_error
        if max_error is None:
            raise UsageError(
                f"{made.name}: was made without a limit on the error; give one as max_error"
            )
    search = _Search(bench, Replay(bench, record, made.model), judged, max_error, threads)
    verdict = search.evaluate(made.stored)
    culprit = None
    if not verdict.passed and record.count:
        search.check_replay(made.name)
        culprit, verdict = search.culprit(verdict)
    return Bisection(
        source=bench.name,
        optimized=made.name,
        samples=sample_report(judged),
        max_error=max_error,
        culprit=culprit,
        failure=verdict.failures[0] if verdict.failures else None,
        error=max(verdict.exact.error, verdict.shipped.error),
        patches=record.count,
        evaluations=search.evaluations,
    )


def _record(made: Opened) -> ReplayRecord:
    text = made.model.metadata_props.get(RECORD_KEY)
    if text is None:
        raise UsageError(
            f"{made.name}: carries no record of rewrites: it was not made by optimize, or nothing "
            "was applied to it, or less was saved than the record takes"
        )
    return decode(text, made.name)


def _data(record: ReplayRecord) -> str:
    data = record.data
    return f"{data.origin} ({data.count} samples, {data.fit} of them fitted on)"


class _Search:
    def __init__(
        self,
        bench: Bench,
        replay: Replay,
        judged: Samples,
        max_error: float | None,
        threads: int,
    ) -> None:
        self._bench = bench
        self._record = replay.record
        self._replay = replay
        self._judged = judged
        self._max_error = max_error
        self._threads = threads
        self._verdicts: dict[int, ModelValidation] = {}
        self.evaluations = 0

    def evaluate(self, candidate: Path | bytes | ir.Model) -> ModelValidation:
        """Compare a model with the original."""
        self.evaluations += 1
        return validate_models(
            self._bench.reference,
            candidate,
            self._judged,
            max_error=self._max_error,
            exactness=self._bench.promise,
            synthetic=self._judged.synthetic,
            threads=self._threads,
            libraries=self._bench.options.libraries,
        )

    def check_replay(self, name: str) -> None:
        """Make sure that the record leads from this source to that model.

        Raises
        ------
        UsageError
            When it does not.
        """
        _, applied = self._replay.run(self._record.count)
        if digest(applied) != self._record.digest:
            raise UsageError(
                f"{self._bench.name}: the record of {name} can't be applied to it again "
                f"({len(applied)} rewrites instead of {self._record.count}); give the original, "
                f"the calibration data if there was any ({self._record.data.origin}), and "
                f"version {self._record.version} of structopt-onnx"
            )

    def culprit(self, whole: ModelValidation) -> tuple[Applied | None, ModelValidation]:
        """Return the first rewrite that is bad and the verdict on the model with it.

        None, and the verdict on the optimized model, when a replay of all of them is good.
        """
        count = self._record.count
        if not self._is_bad(count):
            return None, whole
        number = first_bad(count, self._is_bad)
        _, applied = self._replay.run(number)
        return applied[-1], self._verdicts[number]

    def _is_bad(self, count: int) -> bool:
        self._bench.progress(f"compare with {count} of {self._record.count} rewrites")
        model, _ = self._replay.run(count)
        self._verdicts[count] = self.evaluate(model)
        return not self._verdicts[count].passed
