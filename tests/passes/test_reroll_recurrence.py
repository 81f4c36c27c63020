from __future__ import annotations

import cProfile
import pstats
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unrolled import GATES, Shape, Style, disguised, mutated, unrolled

from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes import catalogue
from structopt_onnx.passes.recurrence import slices
from structopt_onnx.passes.recurrence.chains import products
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session

_PIPELINE = "normalize,remove-identities,share-initializers,reroll-recurrence"
_MODELS = Path(__file__).parents[2] / "models"
_OPERATORS = {"lstm": "LSTM", "peephole": "LSTM", "gru": "GRU", "gru-before": "GRU"}


def rerolled(model: onnx.ModelProto):
    manager = PassManager(CpuTarget(), check_each_patch=True)
    after = to_proto(manager.run(load(model), parse_pipeline(_PIPELINE, catalogue())))
    onnx.checker.check_model(after, full_check=True)
    return after, manager.record


def feeds(session: Session, batch: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        i.name: rng.standard_normal([d if isinstance(d, int) else batch for d in i.shape]).astype(
            np.float32
        )
        for i in session.inputs
    }


def largest_difference(before: onnx.ModelProto, after: onnx.ModelProto) -> float:
    one = Session(before.SerializeToString(), optimize=False)
    other = Session(after.SerializeToString(), optimize=False)
    worst = 0.0
    for batch in (1, 3):
        made = feeds(one, batch)
        was, now = one.run(made), other.run(made)
        for name, array in was.items():
            assert array.shape == now[name].shape
            scale = max(1.0, float(np.abs(array).max()))
            worst = max(worst, float(np.abs(array - now[name]).max()) / scale)
    return worst


styles = st.builds(
    Style,
    cell=st.sampled_from([cell for cell in GATES if cell != "sine"]),
    product=st.sampled_from(["stacked", "joined", "separate"]),
    order=st.permutations(range(4)).map(tuple),
    operator=st.sampled_from(["Gemm", "MatMul"]),
    reading=st.sampled_from(["gather", "gather1", "slice", "split", "part"]),
    collecting=st.sampled_from(["stack0", "stack1", "rows", "features", "last", "each"]),
    start=st.sampled_from(["zeros", "input", "folded"]),
    time_axis=st.sampled_from([0, 1]),
    backwards=st.booleans(),
    flipped=st.booleans(),
    cutting=st.sampled_from(["split", "slice"]),
)
shapes = st.builds(
    Shape, steps=st.integers(2, 6), features=st.integers(1, 5), hidden=st.integers(1, 6)
)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(style=styles, shape=shapes, seed=st.integers(0, 99))
def test_a_cell_is_found_by_its_algebra(style: Style, shape: Shape, seed: int):
    model = disguised(unrolled(style, shape, seed), random.Random(seed))
    after, _ = rerolled(model)
    counted = Counter(node.op_type for node in after.graph.node)
    assert counted[_OPERATORS.get(style.cell, "RNN")] == 1
    assert not {"Gemm", "MatMul", "Sigmoid", "Tanh", "Relu", "Mul", "Add"} & set(counted)
    assert largest_difference(model, after) <= 1e-5


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(style=styles, shape=shapes, seed=st.integers(0, 10**6))
def test_a_broken_pattern_keeps_its_outputs(style: Style, shape: Shape, seed: int):
    draw = random.Random(seed)
    model = mutated(disguised(unrolled(style, shape, seed), draw), draw)
    after, _ = rerolled(model)
    assert largest_difference(model, after) <= 1e-5


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(style=styles, shape=shapes, seed=st.integers(0, 10**6))
def test_two_steps_that_are_nearly_a_cell_keep_their_outputs(style: Style, shape: Shape, seed: int):
    draw = random.Random(seed)
    nearly = replace(style, start="folded"), replace(shape, steps=2)
    model = mutated(disguised(unrolled(*nearly, seed), draw), draw)
    after, _ = rerolled(model)
    assert largest_difference(model, after) <= 1e-5


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(
    product=st.sampled_from(["stacked", "joined"]),
    start=st.sampled_from(["zeros", "input"]),
    collecting=st.sampled_from(["stack0", "stack1", "last", "each"]),
    backwards=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_cell_without_operator_becomes_a_scan(product, start, collecting, backwards, seed):
    style = Style("sine", product, start=start, collecting=collecting, backwards=backwards)
    model = disguised(unrolled(style, Shape(5), seed), random.Random(seed))
    after, _ = rerolled(model)
    counted = Counter(node.op_type for node in after.graph.node)
    assert counted["Scan"] == 1
    assert not {"Sin", "Tanh", "Mul"} & set(counted)
    # Products with x are done for all steps at once where they stand alone, which may round
    # differently; with x and h in one product nothing changes.
    assert largest_difference(model, after) <= (0 if product == "joined" else 1e-6)


def test_weights_copied_per_step_are_one():
    model = unrolled(Style("lstm"), Shape(4))
    copies = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name in copies:
                copy = onnx.TensorProto()
                copy.CopyFrom(copies[name])
                copy.name = f"{name}_for_{node.output[0]}_{index}"
                model.graph.initializer.append(copy)
                node.input[index] = copy.name
    for tensor in copies.values():
        model.graph.initializer.remove(tensor)
    after, _ = rerolled(model)
    assert Counter(node.op_type for node in after.graph.node)["LSTM"] == 1
    assert largest_difference(model, after) <= 1e-5


def test_a_step_is_peeled_that_is_the_last_one_a_state_is_known_for():
    manager = PassManager(CpuTarget())
    facts = manager.facts(load(unrolled(Style("peephole", start="input"), Shape(5))))
    graph = facts.scopes[0].graph
    (chain,) = products(graph, facts).chains
    known = replace(chain, anchors=((chain.products[0].inputs[chain.state],),))
    position = {node: index for index, node in enumerate(graph)}
    found = slices.unrolled(known.without_first(), facts, position)
    assert found is not None
    assert found.length == 4


def test_the_shipped_rnn_is_one_operator_with_one_output_layer():
    model = onnx.load(_MODELS / "simple_rnn_unrolled.onnx")
    after, _ = rerolled(model)
    counted = Counter(node.op_type for node in after.graph.node)
    assert (counted["RNN"], counted["Gemm"], counted["LogSoftmax"]) == (1, 1, 1)
    assert not {"MatMul", "Add"} & set(counted)
    (rnn,) = (node for node in after.graph.node if node.op_type == "RNN")
    assert [a.strings for a in rnn.attribute if a.name == "activations"] == [[b"Affine"]]
    assert largest_difference(model, after) <= 1e-5


def calls(steps: int) -> int:
    """Count the function calls of a look at an unrolled LSTM of so many steps."""
    manager = PassManager(CpuTarget())
    model = load(unrolled(Style("lstm", reading="split"), Shape(steps)))
    facts = manager.facts(model)
    (step,) = parse_pipeline("reroll-recurrence", catalogue())
    profile = cProfile.Profile()
    profile.enable()
    found = list(step.propose(facts.scopes[0], facts))
    profile.disable()
    assert len(found) == 1
    return pstats.Stats(profile).total_calls


def test_work_grows_with_the_steps_and_no_faster():
    few, some, many = calls(20), calls(40), calls(80)
    assert (many - some) <= 2.1 * (some - few)
