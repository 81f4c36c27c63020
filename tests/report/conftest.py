from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from structopt_onnx.report.curve_record import Curve, CurvePoint
from structopt_onnx.report.plan_record import OptionReport, PlanReport, SiteReport
from structopt_onnx.report.record import EstimateRow, Report, SampleReport, Size
from structopt_onnx.rewriting.cost import Cost
from structopt_onnx.rewriting.passes import Refusal
from structopt_onnx.rewriting.record import Applied, Refused
from structopt_onnx.runtime.comparison import Comparison, Deployed, Timing
from structopt_onnx.runtime.machine import Machine
from structopt_onnx.runtime.replicates import replicate_of
from structopt_onnx.validation.compare import Validation
from structopt_onnx.validation.metrics import OutputMetrics
from structopt_onnx.validation.models import ModelValidation

MACHINE = Machine("Test CPU", 2, 1 << 34, "Linux", "3.11.7", "1.23.0", "1.19.0", "2.0.0")


def metrics(name: str, error: float, top1: float | None = None) -> OutputMetrics:
    return OutputMetrics(
        name=name,
        dtype="float32",
        samples=36,
        elements=360,
        compared=360,
        max_abs=error * 4,
        relative_l2=error,
        worst_sample_relative_l2=error * 2,
        worst_sample=3,
        cosine=1.0,
        snr_db=27.3,
        top1_agreement=top1,
        mismatched_samples=1.0,
        mismatched_elements=1.0,
        bitwise_equal=False,
        dtype_equal=True,
        shape_equal=True,
        nonfinite_equal=True,
        problems=(),
    )


def validation(
    errors: dict[str, float], limit: float, failures: tuple[str, ...] = ()
) -> ModelValidation:
    outputs = tuple(metrics(name, error, 0.97) for name, error in errors.items())
    check = Validation(outputs, failures, 36, dict.fromkeys(errors, limit), False, False)
    return ModelValidation((), check, replace(check, optimized=True), dict.fromkeys(errors, 1e-7))


def timing(p50: float) -> Timing:
    return Timing(p50, p50 * 1.1, p50 * 0.9, 240, 1.5, 0.2, 56 << 20, 1000)


def comparison(ratio: float = 0.82, verdict: str = "faster", reason: str = "") -> Comparison:
    return Comparison(
        a=timing(0.1),
        b=timing(0.1 * ratio),
        ratio=ratio,
        low=ratio - 0.02,
        high=ratio + 0.03,
        control_ratio=1.001,
        control_spread=0.002,
        control="fresh session",
        verdict=verdict,
        reason=reason,
        clock="thread CPU time",
        deployed=Deployed(2, ratio, 0.07, 0.06, 35.0, noisy=True),
        replicates=8,
        pairs=30,
        feeds=8,
        seconds=9.0,
        provider="CPUExecutionProvider",
        machine=MACHINE,
        replicate_times=tuple(
            replicate_of(
                [[0.1 * drift, 0.11, 0.12], [0.1 * ratio * drift, 0.11 * ratio, 0.12 * ratio],
                 [0.1 * drift, 0.11, 0.121]],
                2,
            )
            for drift in (1.0, 1.01, 0.99)
        ),
    )  # fmt: skip


def site(weight: str, chosen: str | None, why: str) -> SiteReport:
    options = tuple(
        OptionReport(
            f"rank {rank}", 1e-4 / rank, 0.3 / rank, Cost(64 * rank, 256 * rank, 64 * rank), rank
        )
        for rank in (8, 16)
    )
    return SiteReport(
        "factor-matmul",
        (weight,),
        f"{weight}_out",
        "output covariance",
        Cost(4096, 16384, 4096, 1),
        (("rank 8", 0.0401),),
        options,
        chosen,
        why,
        spectrum=tuple((n, 0.5**n) for n in range(1, 17)),
    )


def plan(*sites: SiteReport, final: float | None = 0.043, **changes: object) -> PlanReport:
    kept = final is not None
    made = PlanReport(
        budget=0.05,
        objective="time",
        sites=sites,
        predicted=0.042 if kept else None,
        summed=0.041 if kept else None,
        probe_error=0.042 if kept else None,
        final_error=final,
        rounds=2,
        undone=(),
        final_evaluations=1,
        nearest_miss=None,
        curve=Curve(
            tuple(
                CurvePoint(Cost(71754 // n, 287032 // n), 0.01 * (n - 1)) for n in (1, 2, 4, 8, 16)
            ),
            (CurvePoint(Cost(16458, 65848), 0.041, 0.042),),
        ),
    )
    return replace(made, **changes)


def empty() -> Report:
    size = Size(Cost(71754, 287032, 370944, 9), 288891)
    return Report(
        source="digits.onnx",
        output="out.onnx",
        options={"max_error": None},
        pipeline="normalize,share-initializers",
        machine=MACHINE,
        before=size,
        after=size,
        applied=(),
        refused=(),
        samples=SampleReport("samples.npz", synthetic=False, count=60),
    )


def lossy() -> Report:
    before, after = Cost(65536, 262144, 65536, 1), Cost(10240, 40960, 10240, 2)
    return replace(
        empty(),
        options={"max_error": 0.05, "calibration": "samples.npz"},
        before=Size(Cost(71754, 287032, 370944, 9), 288891, {"Relu": 3, "Gemm": 2}),
        after=Size(Cost(16458, 65848, 315648, 10), 141302, {"Relu": 3, "MatMul": 1, "Gemm": 1}),
        applied=(
            Applied(1, "share-initializers", "w2 is w1", "share", Cost(64, 256), Cost()),
            Applied(
                2, "factor-matmul", "fc: rank 8", "fc", before, after, ("h",), ("fc",), "rank 8"
            ),
        ),
        refused=(
            Refused("factor-matmul", Refusal("weight-rank", "3 dimensions", "att")),
            Refused("factor-matmul", Refusal("weight-rank", "4 dimensions", "att2")),
            Refused("share-initializers", Refusal("does-not-pay", "time 1 -> 2", "tiny")),
        ),
        samples=SampleReport("samples.npz", False, 60, 36, 12, 12, by_source=True),
        plan=plan(site("fc", "rank 8", "chosen"), site("head", None, "over the budget")),
        validation=validation({"logits": 0.043}, 0.05),
        comparison=comparison(),
        seconds={"fit": 0.25, "benchmark": 9.0},
    )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """Builders of hand-made records."""
    return SimpleNamespace(
        empty=empty,
        lossy=lossy,
        plan=plan,
        site=site,
        validation=validation,
        comparison=comparison,
        estimate=lambda: (EstimateRow(0.01, 60000, 350000), EstimateRow(0.1, 20000, 320000)),
        changed=replace,
        refused=lambda code, node: Refused("factor-matmul", Refusal(code, "detail", node)),
    )
