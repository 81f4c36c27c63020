from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import hypothesis.strategies as st
import numpy as np
import onnx
import onnx.helper as oh
import onnx.numpy_helper
import pytest
from hypothesis import given

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.errors import UsageError
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.low_rank.factor_embedding import FactorEmbedding
from structopt_onnx.passes.low_rank.narrow_embedding import NarrowEmbedding
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from structopt_onnx.rewriting.passes import Choice

_ROWS, _FEATURES = 23, 9
_SEEDS = st.integers(0, 2**32 - 1)
# How many dimensions the ids of each Gather have.
_RANKS = st.lists(st.integers(0, 3), min_size=1, max_size=3)


def _model(table: np.ndarray, ranks: list[int], kind: int) -> onnx.ModelProto:
    element = oh.np_dtype_to_tensor_dtype(table.dtype)
    dims = [[f"d{n}_{k}" for k in range(rank)] for n, rank in enumerate(ranks)]
    graph = oh.make_graph(
        [oh.make_node("Gather", ["E", f"ids{n}"], [f"y{n}"]) for n in range(len(ranks))],
        "g",
        [oh.make_tensor_value_info(f"ids{n}", kind, size) for n, size in enumerate(dims)],
        [
            oh.make_tensor_value_info(f"y{n}", element, [*size, _FEATURES])
            for n, size in enumerate(dims)
        ],
        [onnx.numpy_helper.from_array(table, "E")],
    )
    return oh.make_model(graph, ir_version=8, opset_imports=[oh.make_opsetid("", 17)])


def _samples(rng: np.random.Generator, ranks: list[int], dtype: type) -> list[dict]:
    """Draw ids of any shape, a few of them often, from both ends of the table."""
    made = []
    for _ in range(5):
        feeds = {}
        for n, rank in enumerate(ranks):
            size = tuple(rng.integers(0, 4, rank))
            ids = np.minimum(rng.geometric(0.2, size), _ROWS) * rng.choice([-1, 1], size)
            feeds[f"ids{n}"] = np.asarray(np.where(ids > 0, ids - 1, ids), dtype)
        made.append(feeds)
    return made


def _choice(proto: onnx.ModelProto, step: FactorEmbedding, samples: list[dict]) -> Choice:
    model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
    if samples:
        facts = manager.facts(model)
        wanted = tuple(step.needs(facts.scopes[0], facts))
        session = Session(proto.SerializeToString(), optimize=False)
        statistics = gather(model, load_samples(samples, session.inputs), wanted)
        manager = replace(manager, statistics=statistics)
    (choice,) = manager.choices(model, step)
    return choice


def _apply(
    proto: onnx.ModelProto, step: FactorEmbedding, choice: Choice, rank: int
) -> onnx.ModelProto:
    model, manager = load(proto), PassManager(CpuTarget(), check_each_patch=True)
    assert manager.apply_plan(model, [Planned(step, choice, choice.options[rank - 1])])
    after = to_proto(model)
    onnx.checker.check_model(after, full_check=True)
    held = sum(int(np.prod(t.dims)) for t in after.graph.initializer)
    assert held == choice.options[rank - 1].after.parameters
    return after


def _rows(proto: onnx.ModelProto, samples: list[dict]) -> np.ndarray:
    session = Session(proto.SerializeToString(), optimize=False)
    made = [array for feeds in samples for array in session.run(feeds).values()]
    return np.concatenate([array.reshape(-1, _FEATURES) for array in made]).astype(np.float64)


@given(_RANKS, _SEEDS, st.booleans(), st.sampled_from([np.int32, np.int64]))
def test_at_full_rank_every_gather_makes_what_it_made(ranks, seed, calibrated, dtype):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((_ROWS, 3)) @ rng.standard_normal((3, _FEATURES))
    kind = oh.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = _model(table.astype(np.float32), ranks, kind)
    samples, step = _samples(rng, ranks, dtype), FactorEmbedding(rank_multiple=1)
    choice = _choice(proto, step, samples if calibrated else [])
    assert choice.options[2].error < 1e-12
    assert [option.rank for option in choice.options[:3]] == [1, 2, 3]
    for option in choice.options:
        assert option.error == pytest.approx(1 - sum(choice.spectrum[: option.rank]), abs=1e-9)
    after = _apply(proto, step, choice, 3)
    np.testing.assert_allclose(_rows(after, samples), _rows(proto, samples), atol=1e-5)


@given(_RANKS, _SEEDS, st.integers(1, 6))
def test_the_predicted_error_is_the_one_measured(ranks, seed, rank):
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((_ROWS, _FEATURES)).astype(np.float32)
    proto = _model(table, ranks, onnx.TensorProto.INT64)
    samples = _samples(rng, ranks, np.int64)
    step = FactorEmbedding(rank_multiple=1, unseen=0.0)
    choice = _choice(proto, step, samples)
    was, now = _rows(proto, samples), _rows(_apply(proto, step, choice, rank), samples)
    predicted = choice.options[rank - 1].error
    if choice.basis == "weights":  # every sample was empty
        assert not was.size
    else:
        measured = ((was - now) ** 2).sum() / (was**2).sum()
        assert measured == pytest.approx(predicted, rel=1e-4, abs=1e-9)
        assert choice.support == pytest.approx(len(was) / _FEATURES)


def _held_out(unseen: float) -> float:
    """Fit on few ids of a table whose rows have a spectrum, and judge on all rows."""
    rng = np.random.default_rng(5)
    table = rng.standard_normal((_ROWS, _FEATURES)) / np.arange(1, _FEATURES + 1)
    proto = _model(table.astype(np.float32), [1], onnx.TensorProto.INT64)
    step = FactorEmbedding(rank_multiple=1, unseen=unseen)
    choice = _choice(proto, step, [{"ids0": np.arange(4)}])
    everything = [{"ids0": np.arange(_ROWS)}]
    after = _apply(proto, step, choice, 4)
    return float(((_rows(proto, everything) - _rows(after, everything)) ** 2).sum())


def test_ids_that_the_samples_lack_are_not_given_up():
    assert _held_out(0.3) < _held_out(0.0) / 2


def test_a_share_of_one_is_the_fit_without_data():
    rng = np.random.default_rng(5)
    table = rng.standard_normal((_ROWS, _FEATURES)).astype(np.float32)
    proto = _model(table, [1], onnx.TensorProto.INT64)
    blind = _choice(proto, FactorEmbedding(rank_multiple=1), [])
    mixed = FactorEmbedding(rank_multiple=1, unseen=1.0)
    seen = _choice(proto, mixed, [{"ids0": np.arange(4)}])
    assert [o.error for o in seen.options] == pytest.approx([o.error for o in blind.options])
    singular = np.linalg.svd(table.astype(np.float64), compute_uv=False) ** 2
    for rank, option in enumerate(blind.options, 1):
        assert option.error == pytest.approx(singular[rank:].sum() / singular.sum())
    assert (blind.basis, seen.basis) == ("weights", "calibration")


def test_a_gather_is_charged_for_the_rows_it_reads():
    table = np.zeros((100_000, 64), np.float32)
    table[:64] = np.eye(64)
    proto = oh.make_model(
        oh.make_graph(
            [oh.make_node("Gather", ["E", "ids"], ["y"])],
            "g",
            [oh.make_tensor_value_info("ids", onnx.TensorProto.INT64, [2, 16])],
            [oh.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 16, 64])],
            [onnx.numpy_helper.from_array(table, "E")],
        ),
        ir_version=8,
        opset_imports=[oh.make_opsetid("", 17)],
    )
    (option, *_) = _choice(proto, FactorEmbedding(), []).options
    assert option.before.parameters == 6_400_000
    assert option.after.parameters == 8 * 100_064
    assert (option.before.macs, option.after.macs) == (0, 32 * 8 * 64)
    assert option.before.of("bytes") > option.after.of("bytes")
    assert option.before.of("time") < option.after.of("time") < 1e-5


@pytest.mark.parametrize("step", [FactorEmbedding, NarrowEmbedding])
@pytest.mark.parametrize("share", [1.5, -0.1, "nan"])
def test_a_share_outside_its_range_is_a_usage_error(step, share):
    with pytest.raises(UsageError, match=rf"unseen is {share}, not between 0 and 1"):
        parse_pipeline(f"{step.name}{{unseen={share}}}", {step.name: step})
