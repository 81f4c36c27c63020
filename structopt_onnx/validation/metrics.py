"""How far one output of a model is from the same output of another, over many samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from structopt_onnx.validation.classes import CHUNK, ClassAgreement
from structopt_onnx.validation.sums import PairSums, ScaledSum
from structopt_onnx.validation.values import dtype_name, is_float, leaves, shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL_SAMPLE = 1e-3
"""Share of the typical sample's norm below which a sample is not judged on its own scale."""
_FEWEST = 2


@dataclass(frozen=True)
class OutputMetrics:
    """How the candidate's output stands to the reference's, over all samples.

    One sample is one run. NaN at the same place in both and infinity of one sign at the same
    place in both are equal and left out of every sum; any other NaN or infinity is a problem.
    A field that means nothing for the output's dtype is None.

    Attributes
    ----------
    name, dtype
        The output and the reference's dtype ("string" for text, "none" if never present).
    samples, elements
        Number of runs and of elements, the reference's and the candidate's, whichever are more.
    compared
        Number of elements whose values were compared: equal shapes, for floats finite in both.
    max_abs
        Largest absolute difference; None for bool and text.
    relative_l2
        Norm of the difference over norm of the reference, pooled over the samples; 0 where both
        are zero, infinite where only the reference is.
    worst_sample_relative_l2
        The largest norm of one sample's difference over that sample's own norm. A sample smaller
        than a thousandth of the root mean square of all samples' norms is measured against that
        thousandth: below it a difference is rounding of the large terms that cancelled.
    worst_sample
        Index of that sample; else of the first with a problem or the most wrong elements; None
        where all are equal.
    cosine
        Cosine of the angle between the two, pooled over the samples; 1 where both are zero and 0
        where one is.
    snr_db
        Signal-to-noise ratio, -20 log10(relative_l2), in dB.
    top1_agreement
        For floats of rank 2 or more whose last axis has one size of at least 2 in all samples,
        taken as classes: share of rows in which the candidate's largest entry is where the
        reference has its largest (any of them, if several are). Rows with NaN are left out, and
        so are outputs inside sequences and maps.
    mismatched_samples, mismatched_elements
        Share of samples, and of elements, that are not equal (0.0 == -0.0, NaN as above).
    bitwise_equal
        Every sample has the same bits.
    dtype_equal, shape_equal, nonfinite_equal
        Whether dtypes, shapes (also lengths of sequences and keys of maps), and the places of
        NaN and infinities agree in every sample.
    problems
        One line for the first of each kind of disagreement that no number can express.
    largest
        Largest absolute value of the reference; None where it gives no floats.
    standard_error
        Of `relative_l2`, by how it differs between samples (Cochran, Sampling Techniques, 1977:
        a ratio of means, to first order); None with fewer than two samples.
    """

    name: str
    dtype: str
    samples: int
    elements: int
    compared: int
    max_abs: float | None
    relative_l2: float | None
    worst_sample_relative_l2: float | None
    worst_sample: int | None
    cosine: float | None
    snr_db: float | None
    top1_agreement: float | None
    mismatched_samples: float
    mismatched_elements: float
    bitwise_equal: bool
    dtype_equal: bool
    shape_equal: bool
    nonfinite_equal: bool
    problems: tuple[str, ...]
    largest: float | None = None
    standard_error: float | None = None

    @property
    def error(self) -> float:
        """What a budget is compared with.

        Relative L2 error for floats, share of samples that differ for integers, bools and text,
        infinity where there are problems.
        """
        if self.problems:
            return math.inf
        return self.mismatched_samples if self.relative_l2 is None else self.relative_l2


class OutputComparison:
    """Accumulates, run by run, what `OutputMetrics` says about one output.

    Per sample two numbers are kept, never the arrays.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._dtype: np.dtype[Any] | None = None
        self._total = PairSums.zero()
        self._norms: list[tuple[ScaledSum, ScaledSum]] = []
        self._wrong: list[int] = []
        self._elements = self._compared = 0
        self._classes = ClassAgreement()
        self._bitwise = True
        self._problems: dict[str, tuple[int, str]] = {}

    def update(self, reference: object, candidate: object) -> None:
        """Compare one run's output.

        Parameters
        ----------
        reference, candidate
            What the two models gave: arrays, or sequences, maps and optionals of them.

        Raises
        ------
        ModelError
            The output is of a kind that can't be compared.
        """
        sample = len(self._norms)
        structure, expected = leaves(reference)
        other, found = leaves(candidate)
        self._norms.append((ScaledSum(), ScaledSum()))
        self._wrong.append(0)
        size = sum(array.size for array in expected)
        self._elements += max(size, sum(array.size for array in found))
        if self._dtype is None and expected:
            self._dtype = expected[0].dtype
        if structure != other:
            before, after = shape_text(structure, expected), shape_text(other, found)
            self._problem("shape", sample, f"{before} became {after}", max(size, 1))
            return
        for a, b in zip(expected, found, strict=True):
            self._compare(sample, a, b)
            if structure == "tensor":
                self._classes.update(a, b)

    def result(self) -> OutputMetrics:
        """Metrics over the samples seen so far."""
        floating = self._dtype is not None and is_float(self._dtype)
        numeric = self._dtype is not None and (floating or self._dtype.kind in "iu")
        total = self._total
        relative = total.difference.root_over(total.reference)
        by_sample = self._relative_by_sample() if floating else []
        snr = math.inf if relative == 0 else -20.0 * math.log10(relative)
        samples = len(self._norms)
        return OutputMetrics(
            name=self._name,
            dtype="none" if self._dtype is None else dtype_name(self._dtype),
            samples=samples,
            elements=self._elements,
            compared=self._compared,
            max_abs=total.max_abs if numeric else None,
            relative_l2=relative if floating else None,
            worst_sample_relative_l2=max(by_sample, default=0.0) if floating else None,
            worst_sample=self._worst_sample(by_sample),
            cosine=total.product.cosine(total.reference, total.candidate) if floating else None,
            snr_db=snr if floating else None,
            top1_agreement=self._classes.share(),
            mismatched_samples=sum(map(bool, self._wrong)) / samples if samples else 0.0,
            mismatched_elements=min(1.0, sum(self._wrong) / max(self._elements, 1)),
            bitwise_equal=self._bitwise,
            dtype_equal="dtype" not in self._problems,
            shape_equal="shape" not in self._problems,
            nonfinite_equal="nonfinite" not in self._problems,
            problems=tuple(f"sample {at}: {what}" for at, what in self._problems.values()),
            largest=total.largest if floating else None,
            standard_error=self._standard_error(relative) if floating else None,
        )

    def _problem(self, kind: str, sample: int, what: str, wrong: int) -> None:
        self._problems.setdefault(kind, (sample, what))
        self._wrong[sample] += wrong
        self._bitwise = False

    def _compare(self, sample: int, a: NDArray[Any], b: NDArray[Any]) -> None:
        if a.shape != b.shape:
            what = f"shape {a.shape} became {b.shape}"
            self._problem("shape", sample, what, max(a.size, 1))
            return
        if dtype_name(a.dtype) != dtype_name(b.dtype):
            what = f"dtype {dtype_name(a.dtype)} became {dtype_name(b.dtype)}"
            self._problem("dtype", sample, what, max(a.size, 1))
            if not (is_float(a.dtype) and is_float(b.dtype)):
                return
        elif a.dtype != self._dtype and not self._dtype_seen(a.dtype):
            what = f"dtype {dtype_name(a.dtype)} instead of the first sample's"
            self._problem("dtype", sample, what, max(a.size, 1))
            return
        same = _same_bits(a, b)
        self._bitwise &= same
        if is_float(a.dtype):
            self._compare_floats(sample, a, a if same else b)
        else:
            self._compare_exactly(sample, a, b)

    def _dtype_seen(self, dtype: np.dtype[Any]) -> bool:
        # Text comes as fixed-width or object arrays: one dtype to us.
        return self._dtype is not None and dtype_name(dtype) == dtype_name(self._dtype)

    def _compare_floats(self, sample: int, a: NDArray[Any], b: NDArray[Any]) -> None:
        flat_a, flat_b = _real(a), _real(b)
        for start in range(0, flat_a.size, CHUNK):
            x = flat_a[start : start + CHUNK].astype(np.float64)
            y = x if b is a else flat_b[start : start + CHUNK].astype(np.float64)
            finite = np.isfinite(x) & np.isfinite(y)
            if not finite.all():
                p, q = x[~finite], y[~finite]
                unequal = ~((np.isnan(p) & np.isnan(q)) | (p == q))
                if unequal.any():
                    at = int(np.argmax(unequal))
                    what = f"{_word(p[at])} became {_word(q[at])}"
                    self._problem("nonfinite", sample, what, int(unequal.sum()))
                x, y = x[finite], y[finite]
            sums = PairSums.equal(x) if b is a else PairSums.of(x, y)
            self._compared += x.size
            self._wrong[sample] += int(np.count_nonzero(x != y))
            self._norms[sample][0].add(sums.reference)
            self._norms[sample][1].add(sums.difference)
            self._total.add(sums)

    def _compare_exactly(self, sample: int, a: NDArray[Any], b: NDArray[Any]) -> None:
        self._compared += a.size
        unequal = np.asarray(a != b, dtype=np.bool_)
        count = int(np.count_nonzero(unequal))
        self._wrong[sample] += count
        if count and a.dtype.kind in "iu":
            x, y = a[unequal], b[unequal]
            # Modulo 2**64 the difference of any two int64 or uint64 is right.
            gap = np.maximum(x, y).astype(np.uint64) - np.minimum(x, y).astype(np.uint64)
            total = self._total
            total.max_abs = max(total.max_abs, float(gap.max()))

    def _relative_by_sample(self) -> list[float]:
        total = self._total.reference
        samples = len(self._norms)
        floor = ScaledSum(total.fraction * SMALL_SAMPLE**2 / samples, total.exponent)
        return [
            difference.root_over(floor)
            if reference.root_over(floor) < 1.0
            else difference.root_over(reference)
            for reference, difference in self._norms
        ]

    def _standard_error(self, relative: float) -> float | None:
        samples = len(self._norms)
        if samples < _FEWEST or not math.isfinite(relative):
            return None
        total = self._total.reference
        mean = ScaledSum(total.fraction / samples, total.exponent)
        off = [d.over(mean) - relative**2 * r.over(mean) for r, d in self._norms]
        square = sum(value**2 for value in off) / (samples * (samples - 1))
        return math.sqrt(square) / (2 * relative) if relative else 0.0

    def _worst_sample(self, by_sample: list[float]) -> int | None:
        if self._problems:
            return min(sample for sample, _ in self._problems.values())
        if max(by_sample, default=0.0) > 0.0:
            return int(np.argmax(by_sample))
        return int(np.argmax(self._wrong)) if any(self._wrong) else None


def _real(array: NDArray[Any]) -> NDArray[Any]:
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if a.dtype != b.dtype or a.dtype.kind in "OUST":
        return bool(np.array_equal(a, b))
    x, y = np.ascontiguousarray(a).reshape(-1), np.ascontiguousarray(b).reshape(-1)
    return bool(np.array_equal(x.view(np.uint8), y.view(np.uint8)))


def _word(value: float) -> str:
    return "a finite number" if math.isfinite(value) else str(float(value)).replace("nan", "NaN")
