from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from structopt_onnx.calibration.domains import input_domain
from structopt_onnx.calibration.synthetic import synthetic_samples
from structopt_onnx.model.facts import Facts
from structopt_onnx.runtime.session import Session

HEAD = '<ir_version: 9, opset_import: ["": 17, "my": 1, "ai.onnx.ml": 3]>\n'


def model_of(text):
    return ir.from_onnx_text(HEAD + text)


def run_on(model, **options):
    session = Session(model)
    samples = synthetic_samples(model, session.inputs, run=session.run, **options)
    for feeds in samples:
        session.run(feeds)
    return samples


def domain(model, name="ids"):
    return input_domain(Facts(model), next(v for v in model.graph.inputs if v.name == name))


def gathered(model, name="ids"):
    return np.concatenate([feed[name].reshape(-1) for feed in run_on(model, count=16)])


@pytest.mark.parametrize(
    ("path", "low", "high"),
    [
        ("i = Identity(ids)", 0, 5),
        ("a = Cast<to = 7>(ids) i = Reshape(a, flat)", 0, 5),
        ("a = Unsqueeze(ids, zero) i = Squeeze(a, zero)", 0, 5),
        ("a = Concat<axis = 0>(ids, flat0) i = Transpose(a)", 0, 5),
        ("i = Add(ids, two)", 0, 3),
        ("i = Sub(ids, two)", 2, 7),
        ("a = Mul(ids, two) i = Add(a, flat0)", 0, 3),
    ],
)
def test_ids_stay_inside_the_table_they_index(path, low, high):
    model = model_of(f"""
        g (int64[T] ids) => (float[M, 2] y)
        <float[5, 2] table = {{0,1,2,3,4,5,6,7,8,9}}, int64[1] flat = {{-1}},
         int64[1] flat0 = {{0}}, int64[1] zero = {{0}}, int64 two = {{2}}>
        {{ {path} y = Gather(table, i) }}""")
    found = domain(model)
    assert (found.low, found.high) == (low, high)
    values = gathered(model)
    assert set(values.tolist()) == set(range(low, high))


def test_the_axis_of_the_table_counts_and_the_smallest_table_wins():
    model = model_of("""
        g (int64[T] ids) => (float[A, B] y, float[C] z)
        <float[2, 3] table = {0,1,2,3,4,5}, float[7] other = {0,1,2,3,4,5,6}>
        { y = Gather<axis = 1>(table, ids) z = Gather(other, ids) }""")
    assert domain(model).high == 3


def test_gather_nd_and_elements_bound_their_indices():
    model = model_of("""
        g (int64[T, 2] ids) => (float[T] y)
        <float[2, 3] table = {0,1,2,3,4,5}> { y = GatherND(table, ids) }""")
    assert domain(model).high == 2
    assert gathered(model).max() == 1
    model = model_of("""
        g (int64[T, 2] ids) => (float[T, 2] y)
        <float[2, 3] table = {0,1,2,3,4,5}>
        { t = Transpose(table) u = Identity(t) y = GatherElements<axis = 0>(table, ids) }""")
    assert domain(model).high == 2


def test_a_table_behind_a_cast_is_seen():
    model = model_of("""
        g (int64[T] ids) => (float[T, 1] y)
        <float16[4, 1] half = {0,1,2,3}> { table = Cast<to = 1>(half) y = Gather(table, ids) }""")
    assert domain(model).high == 4


def test_indices_into_an_activation_follow_its_dimension():
    model = model_of("""
        g (float[T, 3] x, int64[K] ids) => (float[K, 3] y) { y = Gather(x, ids) }""")
    assert domain(model).dims == {"T"}
    for feed in run_on(model):
        assert 0 <= feed["ids"].min() <= feed["ids"].max() < len(feed["x"])


def test_ids_are_followed_into_subgraphs_and_functions():
    model = model_of("""
        g (int64[T] ids, bool c) => (float[T, 1] y)
        <float[3, 1] table = {0,1,2}>
        { y = If (c) <then_branch = t () => (float[T, 1] a) { a = Gather(table, ids) },
                      else_branch = e () => (float[T, 1] b) { b = Gather(table, ids) }> }""")
    assert domain(model).high == 3
    assert {bool(feed["c"]) for feed in run_on(model, count=16)} == {True, False}
    model = model_of("""
        g (int64[T] ids) => (float[T, 1] y)
        <float[4, 1] table = {0,1,2,3}> { y = my.look(table, ids) }
        <domain: "my", opset_import: ["" : 17]>
        look (w, i) => (o) { j = Identity(i) o = Gather(w, j) }""")
    # The function's own table has no shape; it is known to be indexed.
    assert domain(model).index
    assert gathered(model).max() <= 1
    model = model_of("""
        g (int64[N, 3] ids) => (float[N, 3] y)
        <float[6] table = {0,1,2,3,4,5}>
        { y = Scan<num_scan_inputs = 1, body = b (int64[3] row) => (float[3] o)
               { o = Gather(table, row) }>(ids) }""")
    assert domain(model).high == 6


def test_a_scalar_takes_what_it_is_compared_with_and_something_else():
    model = model_of("""
        g (float[N] x, int64 rate) => (float[N] y)
        <int64 r = {16000}>
        { c = Equal(rate, r)
          y = If (c) <then_branch = t () => (float[N] a) { a = Neg(x) },
                      else_branch = e () => (float[N] b) { b = Abs(x) }> }""")
    values = {int(feed["rate"]) for feed in run_on(model)}
    assert 16000 in values
    assert len(values) == 2


def test_an_illegal_branch_is_left_out():
    model = model_of("""
        g (float[N] x, int64 rate) => (float y)
        <int64 r = {16000}, int64[2] bad = {-1, 7}>
        { c = Equal(rate, r)
          y = If (c) <then_branch = t () => (float a) { a = ReduceSum<keepdims = 0>(x) },
                      else_branch = e () => (float b)
                      { s = Reshape(x, bad) b = ReduceSum<keepdims = 0>(s) }> }""")
    assert {int(feed["rate"]) for feed in run_on(model)} == {16000}


def test_ordered_comparisons_are_drawn_on_both_sides():
    model = model_of("""
        g (int64[N] ids) => (bool[N] y) <int64 five = {5}> { y = Less(ids, five) }""")
    assert domain(model).compared == (4, 5, 6)
    assert {4, 5, 6} <= set(gathered(model).tolist())


def test_padding_ids_occur_among_the_others():
    model = model_of("""
        g (int64[N, T] ids) => (bool[N, T] m, float[N, T] y) <int64 pad = {3}, float[1] table = {0}>
        { m = Equal(ids, pad) y = Gather(table, ids) }""")
    table = model.graph.initializers["table"]
    table.const_value = ir.tensor(np.zeros(40_000, np.float32), name="table")
    table.shape = ir.Shape([40_000])
    values = gathered(model)
    assert values.max() > 10_000
    assert 0.05 < (values == 3).mean() < 0.25


def test_counts_masks_and_positive_inputs():
    model = model_of("""
        g (float[4] x, int64[1] k, int64[N, T] attention_mask, float[N] scale)
          => (float[M] y, int64[M] j, int64[N, T] m, float[N] s)
        { y, j = TopK(x, k) m = Identity(attention_mask) s = Log(scale) }""")
    for feed in run_on(model):
        assert feed["k"][0] in {1, 2}
        mask = feed["attention_mask"]
        assert (mask[:, 0] == 1).all()
        assert (np.diff(mask, axis=1) <= 0).all()
        assert (feed["scale"] > 0).all()
