"""Models that carry weights in every sparse form, through every command."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import structopt_onnx as so
from structopt_onnx.cli import main
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import to_proto
from structopt_onnx.passes.sparsity.encode_sparse import EncodeSparse
from structopt_onnx.rewriting.manager import PassManager
from structopt_onnx.rewriting.target import TARGETS
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from pathlib import Path

SIDE = 64
FORMS = ("linear", "rows", "int32", "constant", "bitmask", "delta", "half", "palette")
PLACES = ("main", "branches")
# Neither the name of a form nor of a file.
_CODED = {"bitmask": "bitmask", "delta": "delta", "half": "bitmask", "palette": "delta"}


def weight_of(form: str) -> np.ndarray:
    rng = np.random.default_rng(FORMS.index(form))
    weight = np.where(rng.random((SIDE, SIDE)) < 0.1, rng.standard_normal((SIDE, SIDE)), 0)
    if form == "half":
        return weight.astype(np.float16).astype(np.float32)
    if form == "palette":
        return (np.sign(weight) * 0.3).astype(np.float32) + np.float32(0)
    return weight.astype(np.float32)


def sparse(weight: np.ndarray, form: str, name: str) -> onnx.SparseTensorProto:
    made = onnx.SparseTensorProto(dims=weight.shape)
    where = np.argwhere(weight) if form == "rows" else np.flatnonzero(weight)
    made.values.CopyFrom(numpy_helper.from_array(weight[weight != 0], name))
    made.indices.CopyFrom(
        numpy_helper.from_array(where.astype(np.int32 if form == "int32" else np.int64))
    )
    return made


def place(graph: onnx.GraphProto, form: str) -> None:
    """Put a weight named after its form into a graph."""
    weight = weight_of(form)
    if form == "constant":
        node = helper.make_node("Constant", [], [form], sparse_value=sparse(weight, form, ""))
        graph.node.insert(0, node)
    elif form in {"linear", "rows", "int32"}:
        graph.sparse_initializer.append(sparse(weight, form, form))
    else:
        graph.initializer.append(numpy_helper.from_array(weight, form))


def chain(start: str, end: str) -> list[onnx.NodeProto]:
    nodes = []
    for form in FORMS:
        nodes.append(helper.make_node("MatMul", [start, form], [f"made_by_{form}"], name=form))
        start = end if form == FORMS[-1] else f"after_{form}"
        nodes.append(helper.make_node("Relu", [f"made_by_{form}"], [start]))
    return nodes


def model_of(where: str) -> onnx.ModelProto:
    """Return a chain of products with one weight in each form, in the main graph or in an If."""
    info = helper.make_tensor_value_info
    ends = info("x", TensorProto.FLOAT, ["N", SIDE]), info("y", TensorProto.FLOAT, ["N", SIDE])
    if where == "main":
        graph = helper.make_graph(chain("x", "y"), "g", [ends[0]], [ends[1]])
        places = [graph]
    else:
        then = helper.make_graph(chain("x", "p"), "then", [], [info("p", 1, ["N", SIDE])])
        other = helper.make_graph(
            [helper.make_node("Neg", ["x"], ["q"])], "else", [], [info("q", 1, ["N", SIDE])]
        )
        node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other, name="if")
        inputs = [info("c", TensorProto.BOOL, []), ends[0]]
        graph = helper.make_graph([node], "g", inputs, [ends[1]])
        places = [next(a.g for a in graph.node[0].attribute if a.name == "then_branch")]
    for form in FORMS:
        place(places[0], form)
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    model = load(proto)
    manager = PassManager(TARGETS["cpu"])
    for form in _CODED.values():
        step = EncodeSparse(form, least_bytes=SIDE * SIDE * 4)
        names = [name for name, kind in _CODED.items() if kind == form]
        manager.run(model, [_Only(step, names)])
    assert len(manager.record.applied) == len(_CODED)
    encoded = to_proto(model)
    onnx.checker.check_model(encoded)
    return encoded


def _Only(step, names):  # noqa: N802 - a pass made on the spot
    class Only(EncodeSparse):
        def _is_candidate(self, value):
            return value.name in names

    return Only(step.sparse_format, least_bytes=step.least_bytes)


def stored_sparse(proto: onnx.ModelProto) -> set[str]:
    """Name the weights that are not stored dense."""
    dense = set()
    pending = [proto.graph]
    while pending:
        graph = pending.pop()
        dense |= {tensor.name for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                dense.add(node.output[0])
            pending += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(FORMS) - dense


@pytest.fixture(scope="module", params=PLACES)
def carrier(request, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "in.onnx"
    onnx.save(model_of(request.param), path)
    return path


def feeds(path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    x = np.random.default_rng(seed).standard_normal((3, SIDE)).astype(np.float32)
    names = [info.name for info in onnx.load(path).graph.input]
    return {name: {"x": x, "c": np.array(True)}[name] for name in names}


def run(path: Path, name: Path | None = None) -> np.ndarray:
    return Session(path).run(feeds(name or path))["y"]


def expected(path: Path) -> np.ndarray:
    made = feeds(path)["x"].astype(np.float64)
    for form in FORMS:
        made = np.maximum(made @ weight_of(form).astype(np.float64), 0)
    return made


def test_the_models_hold_every_form_and_mean_what_they_should(carrier):
    proto = onnx.load(carrier)
    assert stored_sparse(proto) == set(FORMS)
    np.testing.assert_allclose(run(carrier), expected(carrier), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"minimize": "bytes"}, {"sparse_format": "none"}])
def test_optimize_keeps_them_sparse(carrier, tmp_path, options):
    out = tmp_path / "out.onnx"
    result = so.optimize(carrier, out, benchmark=False, **options)
    assert not result.report.rolled_back
    onnx.checker.check_model(str(out))
    assert out.stat().st_size <= carrier.stat().st_size
    assert stored_sparse(onnx.load(out)) == set(FORMS)
    np.testing.assert_allclose(run(out, carrier), run(carrier), rtol=1e-4, atol=1e-5)
    assert so.validate(carrier, out).passed


def test_densify_brings_back_every_bit(carrier, tmp_path):
    out = tmp_path / "dense.onnx"
    result = so.densify(carrier, out)
    assert (result.count, result.verified) == (len(FORMS), True)
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    assert not stored_sparse(proto)
    graphs = [proto.graph, *(a.g for n in proto.graph.node for a in n.attribute if a.HasField("g"))]
    found = {t.name: numpy_helper.to_array(t) for g in graphs for t in g.initializer}
    for g in graphs:
        for node in g.node:
            if node.op_type == "Constant":
                found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    for form in FORMS:
        assert found[form].tobytes() == weight_of(form).tobytes(), form
    kinds = {node.op_type for g in graphs for node in g.node}
    assert kinds <= {"MatMul", "Relu", "If", "Neg", "Constant"}
    np.testing.assert_array_equal(run(out, carrier), run(carrier))


def test_the_other_commands_read_them(carrier, tmp_path):
    report = so.explain(carrier)
    assert {entry.step for entry in report.applied} >= {"decode-sparse", "encode-sparse"}
    notes = so.inspect(carrier).notes
    assert any(note.startswith("tensors stored sparse: 4") for note in notes)
    assert any(note.startswith("tensors decoded from constants: 4") for note in notes)
    assert so.validate(carrier, carrier).passed
    timed = so.benchmark(carrier, seconds=1.0)
    assert timed is not None
    out = tmp_path / "out.onnx"
    so.optimize(carrier, out, minimize="bytes", benchmark=False)
    found = so.bisect(carrier, out)
    assert (found.culprit, found.failure) == (None, None)


def test_encodings_are_replayed(carrier, tmp_path):
    dense, out = tmp_path / "dense.onnx", tmp_path / "out.onnx"
    so.densify(carrier, dense)
    report = so.optimize(dense, out, sparse_format="delta", benchmark=False).report
    assert [entry.step for entry in report.applied].count("encode-sparse") == len(FORMS)
    # A weight spoilt after the fact: all rewrites are applied again, and none is to blame.
    proto = onnx.load(out)
    spoilt = next(t for t in _tensors(proto) if t.name.endswith("values"))
    array = numpy_helper.to_array(spoilt).copy()
    array[len(array) // 2] += 1
    spoilt.CopyFrom(numpy_helper.from_array(array, spoilt.name))
    onnx.save(proto, out)
    found = so.bisect(dense, out)
    assert found.failure is not None
    assert found.culprit is None


def _tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    graphs = [proto.graph, *(a.g for n in proto.graph.node for a in n.attribute if a.HasField("g"))]
    return [tensor for graph in graphs for tensor in graph.initializer]


def pruned_model(path: Path) -> Path:
    """Write a product with one weight of which a tenth is left."""
    rng = np.random.default_rng(0)
    weight = np.where(rng.random((SIDE, 4 * SIDE)) < 0.1, rng.standard_normal((SIDE, 4 * SIDE)), 0)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [info("x", TensorProto.FLOAT, ["N", SIDE])],
        [info("y", TensorProto.FLOAT, ["N", 4 * SIDE])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("options", "forms"),
    [
        ({}, []),
        ({"minimize": "macs"}, []),
        ({"minimize": "bytes"}, ["delta"]),
        ({"minimize": "bytes", "sparse_format": "none"}, []),
        ({"sparse_format": "auto"}, ["delta"]),
        ({"sparse_format": "bitmask"}, ["bitmask"]),
        ({"sparse_format": "auto", "target": "coreml"}, ["initializer"]),
        ({"passes": "encode-sparse"}, ["delta"]),
        ({"passes": "encode-sparse{sparse_format=initializer}"}, ["initializer"]),
        ({"sparse_format": "auto", "skip": ("w",)}, []),
        ({"sparse_format": "initializer", "skip": ("w",)}, []),
        ({"sparse_format": "initializer", "only": ("product",)}, ["initializer"]),
        ({"sparse_format": "auto", "only": ("another",)}, []),
    ],
)
def test_what_turns_encoding_on(options, forms, tmp_path):
    source, out = pruned_model(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    report = so.optimize(source, out, benchmark=False, **options).report
    titles = [entry.title for entry in report.applied if entry.step == "encode-sparse"]
    assert [title.split()[1].strip(",") for title in titles] == forms
    assert not report.rolled_back
    smaller = out.stat().st_size < 0.3 * source.stat().st_size
    assert smaller == bool(forms)
    told = so.explain(source, **options)
    assert [e.title for e in told.applied if e.step == "encode-sparse"] == titles


def test_a_format_that_there_is_not():
    with pytest.raises(so.UsageError, match="sparse_format is one of auto, initializer"):
        so.OptimizeOptions(sparse_format="csr")
    with pytest.raises(so.UsageError, match="sparse_format is one of"):
        so.OptimizeOptions(passes="encode-sparse{sparse_format=csr}")


def test_where_the_encoded_file_fails_the_dense_one_is_kept(tmp_path, monkeypatch):
    module = importlib.import_module("structopt_onnx.api.deliver")
    real = module.validate_models

    def broken(reference, candidate, *others, **options):
        verdict = real(reference, candidate, *others, **options)
        names = {t.name for t in onnx.load(candidate).graph.initializer}
        encoded = "w" not in names
        return replace(verdict, interface=("planted",)) if encoded else verdict

    monkeypatch.setattr(module, "validate_models", broken)
    source, out = pruned_model(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    report = so.optimize(source, out, benchmark=False, minimize="bytes").report
    assert report.rolled_back == ("exact rewrites, weights encoded: planted",)
    assert [t.name for t in onnx.load(out).graph.initializer] == ["w"]


def test_the_shipped_regression(models, tmp_path):
    source = models / "sparse_linear_regression.onnx"
    small, dense, again = (tmp_path / f"{name}.onnx" for name in ("small", "dense", "again"))
    so.optimize(source, small, minimize="bytes", benchmark=False)
    so.densify(small, dense)
    step = "encode-sparse{least_bytes=256}"
    so.optimize(dense, again, passes=step, benchmark=False)
    with np.load(models / "sparse_linear_regression_test.npz") as arrays:
        feeds_ = {"x": arrays["x"]}
    expected_ = Session(source).run(feeds_)["prediction"]
    for path in (small, dense, again):
        assert Session(path).run(feeds_)["prediction"].tobytes() == expected_.tobytes()
    sizes = {path.stem: path.stat().st_size for path in (source, small, dense, again)}
    assert sizes["small"] < sizes["sparse_linear_regression"] < sizes["again"] < sizes["dense"]
    for path in (small, again):
        (weights,) = onnx.load(path).graph.sparse_initializer
        assert so.to_scipy(weights).nnz == 18


HOSTILE = {
    "out of range": lambda s: s.indices.int64_data.__setitem__(1, 10**6),
    "negative": lambda s: s.indices.int64_data.__setitem__(0, -1),
    "unsorted": lambda s: s.indices.int64_data.__setitem__(0, 500),
    "duplicate": lambda s: s.indices.int64_data.__setitem__(1, s.indices.int64_data[0]),
    "overflowing dims": lambda s: s.dims.extend([2**62, 2**62]),
    "large dims": lambda s: (s.dims.pop(), s.dims.append(10**12)),
    "more values": lambda s: s.values.dims.__setitem__(0, s.values.dims[0] + 1),
    "fewer indices": lambda s: s.indices.int64_data.pop(),
    "vast counts": lambda s: (
        s.values.dims.__setitem__(0, 10**12),
        s.indices.dims.__setitem__(0, 10**12),
    ),
    "no values": lambda s: s.ClearField("values"),
}


def hostile(kind: str, place_: str) -> onnx.ModelProto:
    weight = weight_of("linear")
    tensor = sparse(weight, "linear", "w")
    where = numpy_helper.to_array(tensor.indices).tolist()
    tensor.indices.CopyFrom(helper.make_tensor("", TensorProto.INT64, [len(where)], where))
    HOSTILE[kind](tensor)
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if place_ == "constant":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], sparse_value=tensor))
    ends = [info("x", 1, ["N", SIDE])], [info("y", 1, ["N", SIDE])]
    graph = helper.make_graph(nodes, "g", *ends)
    if place_ == "initializer":
        graph.sparse_initializer.append(tensor)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("place_", ["initializer", "constant"])
@pytest.mark.parametrize("command", ["inspect", "densify"])
def test_a_hostile_tensor_is_one_clear_error(kind, place_, command, tmp_path, capsys):
    path = tmp_path / "hostile.onnx"
    path.write_bytes(hostile(kind, place_).SerializeToString())
    words = [command, str(path), *([str(tmp_path / "out.onnx")] if command == "densify" else [])]
    assert main(words) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"error: {path}: ")
    named = "'w'" if place_ == "initializer" and kind != "no values" else "sparse"
    assert named in said
    assert ";" in said  # the remedy
    assert [p.name for p in tmp_path.iterdir()] == ["hostile.onnx"]


def test_a_hostile_tensor_takes_no_memory(tmp_path):
    path = tmp_path / "hostile.onnx"
    path.write_bytes(hostile("large dims", "initializer").SerializeToString())
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30));"
        "from structopt_onnx.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, "inspect", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
