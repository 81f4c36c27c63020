from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.loading import SOURCE, load
from structopt_onnx.model.saving import save, to_proto

if TYPE_CHECKING:
    from pathlib import Path

EVERYTHING = """
<ir_version: 10, opset_import: ["" : 17, "my" : 3, "local" : 1, "ai.onnx.ml" : 3],
 producer_name: "maker", producer_version: "1.2", domain: "com.example", model_version: 7,
 doc_string: "a model with everything", metadata_props: ["author": "me", "task": "test"]>
main (float[N, 3] x, bool c, seq(float[N]) s, optional(float[2]) o, float[3] w)
    => (float[N, 3] y, float[K] z, float[T, 3] scanned, float[M, 3] looped)
<float[3] w = {1.0, 2.0, 3.0}, float[3] b = {0.5, 0.0, -0.5}, int64 trips = {3},
 float[3] start = {0.0, 0.0, 0.0}, string[2] words = {"a", "b"}>
{
  first = Add (x, w)
  chosen = If (c) <
    then_branch = taken () => (float[N, 3] t) <float[3] k = {1.0, 1.0, 1.0}> { t = Mul (first, k) },
    else_branch = not_taken () => (float[N, 3] e) { k = Constant <value_floats = [2.0]> ()
                                                   e = Sub (first, k) } >
  f = local.Scale <factor = 2.0> (chosen)
  y = my.Custom <mode = "odd", sizes = [1, 2]> (f, b, words)
  item = SequenceAt (s, trips)
  z = Identity (item)
  final, scanned = Scan <num_scan_inputs = 1, body = step (float[3] before, float[3] row)
      => (float[3] after, float[3] out) { after = Add (before, row)
                                          out = Identity (after) } > (start, x)
  kept, looped = Loop <body = turn (int64 i, bool more, float[3] state)
      => (bool again, float[3] next, float[3] each) { again = Identity (more)
                                                      next = Add (state, b)
                                                      each = Identity (next) } > (trips, c, start)
}
<domain: "local", opset_import: ["" : 17]>
Scale <factor> (a) => (r)
{
  v = Constant <value_float: float = @factor> ()
  r = Mul (a, v)
}
"""


def everything() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(EVERYTHING)
    proto.graph.doc_string = "the graph"
    proto.graph.node[0].name = "first_add"
    proto.graph.node[0].doc_string = "a node"
    proto.graph.node[0].metadata_props.add(key="layer", value="0")
    dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
    dim.denotation = "DATA_BATCH"
    proto.graph.input[0].type.denotation = "TENSOR"
    proto.graph.input.append(helper.make_sparse_tensor_value_info("sp", TensorProto.FLOAT, [2, 2]))
    proto.graph.value_info.append(
        helper.make_tensor_value_info("first", TensorProto.FLOAT, ["N", 3])
    )
    annotation = proto.graph.quantization_annotation.add(tensor_name="first")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="b")
    return proto


def canonical(proto: onnx.ModelProto) -> onnx.ModelProto:
    """One proto for all that mean the same: entries sorted, what is repeated or empty gone."""
    same = onnx.ModelProto()
    same.CopyFrom(proto)
    drop_repeated(same.graph)
    sort_entries(same)
    return same


def drop_repeated(graph: onnx.GraphProto) -> None:
    """Drop what value_info says about initializers."""
    initializers = {tensor.name for tensor in graph.initializer}
    keep(graph, "value_info", [i for i in graph.value_info if i.name not in initializers])
    for node in graph.node:
        for attribute in node.attribute:
            drop_repeated(attribute.g)
            if attribute.type != onnx.AttributeProto.GRAPH:
                attribute.ClearField("g")


def keep(message, field: str, entries: list) -> None:
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    message.ClearField(field)
    getattr(message, field).extend(copies)


def sort_entries(message) -> None:
    for field, value in message.ListFields():
        if field.name in {"metadata_props", "value_info"}:
            keep(
                message, field.name, sorted(value, key=lambda e: getattr(e, "key", None) or e.name)
            )
        elif not value:
            message.ClearField(field.name)
        if field.message_type:
            present = getattr(message, field.name)
            for child in present if field.is_repeated else [present]:
                sort_entries(child)


def linear(
    *,
    opset: int = 17,
    ir_version: int = 8,
    listed: bool = False,
    weight: TensorProto | None = None,
) -> onnx.ModelProto:
    weight = weight or numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(2, 3), "w")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    if listed:
        inputs.insert(0, helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3]))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def external(name: str = "w", **entries: object) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "w.bin", "offset": 0, "length": 24, **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def write(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def with_data(tmp_path):
    (tmp_path / "w.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    return write(linear(weight=external()), tmp_path / "m.onnx")


def refusal(source) -> str:
    with pytest.raises(ModelError) as caught:
        load(source)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 700
    return text


class TestKept:
    def test_all_that_a_model_can_hold_survives_a_round_trip(self, tmp_path):
        proto = everything()
        saved = save(load(proto), tmp_path / "m.onnx")
        for again in (to_proto(load(proto)), onnx.load(saved)):
            assert canonical(again) == canonical(proto)

    def test_overridable_initializers_stay_inputs(self):
        model = load(everything())
        assert [value.name for value in model.graph.inputs] == ["x", "c", "s", "o", "w", "sp"]
        assert model.graph.initializers["w"].is_graph_input()

    def test_old_versions_list_initializers_that_are_constants(self, tmp_path):
        proto = linear(ir_version=3, listed=True)
        model = load(proto)
        assert [value.name for value in model.graph.inputs] == ["x"]
        assert not model.graph.initializers["w"].is_graph_input()
        again = onnx.load(save(model, tmp_path / "old.onnx"))
        onnx.checker.check_model(again)
        assert [info.name for info in again.graph.input] == ["x", "w"]
        assert again.graph.input[1] == proto.graph.input[0]
        assert not again.graph.value_info

    def test_old_versions_list_new_initializers_too(self):
        model = load(linear(ir_version=3, listed=True))
        extra = ir.Value(name="extra", const_value=ir.tensor(np.zeros(3, np.float32), name="extra"))
        model.graph.register_initializer(extra)
        proto = to_proto(model)
        onnx.checker.check_model(proto)
        assert [info.name for info in proto.graph.input] == ["x", "w", "extra"]
        assert proto.graph.input[2].type.tensor_type.shape.dim[0].dim_value == 3

    def test_the_standards_domain_has_one_spelling(self):
        proto = linear()
        proto.opset_import[0].domain = "ai.onnx"
        proto.graph.node[0].domain = "ai.onnx"
        model = load(proto)
        assert dict(model.opset_imports) == {"": 17}
        assert model.graph[0].domain == ""

    def test_thousands_of_nodes_and_unknown_domains(self):
        nodes = [helper.make_node("Neg", ["v0"], ["v1"])]
        nodes += [
            helper.make_node("Odd", [f"v{i}"], [f"v{i + 1}"], domain="far.away")
            for i in range(1, 3000)
        ]
        info = helper.make_tensor_value_info
        graph = helper.make_graph(nodes, "g", [info("v0", 1, [1])], [info("v3000", 1, None)])
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("far.away", 1)]
        model = load(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        assert len(model.graph) == 3000


class TestSources:
    def test_every_form_of_source_gives_the_same_model(self, tmp_path):
        proto = linear()
        path = write(proto, tmp_path / "m.onnx")
        program = SimpleNamespace(model=ir.from_proto(linear()))
        named = {
            str(path): path,
            str(path) + "": str(path),
            "<bytes>": proto.SerializeToString(),
            "<ModelProto>": proto,
            "<onnx_ir.Model>": ir.from_proto(linear()),
        }
        for name, source in [*named.items(), ("<onnx_ir.Model>", program)]:
            model = load(source)
            assert model.meta[SOURCE] == name
            assert canonical(to_proto(model)) == canonical(proto)

    def test_something_else_is_a_usage_error(self):
        with pytest.raises(UsageError, match="not list"):
            load([1, 2])

    def test_a_proto_is_never_changed(self):
        proto = everything()
        before = proto.SerializeToString(deterministic=True)
        wreck(load(proto))
        assert proto.SerializeToString(deterministic=True) == before

    def test_a_callers_ir_model_is_never_changed(self):
        for original in (
            ir.from_proto(everything()),
            ir.from_proto(linear(ir_version=3, listed=True)),
            load(everything()),
        ):
            original.meta["mine"] = 1
            before = ir.to_proto(original).SerializeToString(deterministic=True)
            tensors = {name: v.const_value for name, v in original.graph.initializers.items()}
            copy = load(original)
            for name, tensor in tensors.items():
                np.testing.assert_array_equal(
                    copy.graph.initializers[name].const_value.numpy(), tensor.numpy()
                )
            wreck(copy)
            assert {n: v.const_value for n, v in original.graph.initializers.items()} == tensors
            assert all(tensor.name == name for name, tensor in tensors.items())
            assert ir.to_proto(original).SerializeToString(deterministic=True) == before
            assert original.meta["mine"] == 1

    def test_a_callers_arrays_are_shared_not_copied(self):
        original = ir.from_proto(linear())
        weight = np.zeros((2, 3), np.float32)
        original.graph.initializers["w"].const_value = ir.Tensor(weight, name="w")
        tensor = load(original).graph.initializers["w"].const_value
        assert np.shares_memory(tensor.numpy(), weight)

    def test_large_weights_are_read_without_further_copies(self):
        weight = numpy_helper.from_array(np.ones((2, 300), np.float32), "w")
        tensor = load(linear(weight=weight)).graph.initializers["w"].const_value
        assert np.shares_memory(tensor.numpy(), tensor.numpy())
        assert not tensor.numpy().flags.writeable


def wreck(model: ir.Model) -> None:
    """Edit all there is to edit."""
    model.metadata_props["author"] = "someone else"
    model.opset_imports[""] = 99
    model.meta["mine"] = 2
    model.doc_string = "wrecked"
    for function in model.functions.values():
        function.opset_imports[""] = 99
        wreck_graph(function.graph)
    for graph in [*model.graph.subgraphs(), model.graph]:
        wreck_graph(graph)
    model.functions.clear()


def wreck_graph(graph: ir.Graph) -> None:
    graph.metadata_props["note"] = "wrecked"
    outputs = [output for node in graph for output in node.outputs]
    for value in (*graph.initializers.values(), *graph.inputs, *outputs):
        value.name = f"{value.name}_renamed"
        value.shape = ir.Shape([1])
        value.metadata_props["note"] = "wrecked"
        if value.type is not None:
            value.type.denotation = "wrecked"
            value.dtype = ir.DataType.INT8
        if value.const_value is not None:
            value.const_value.metadata_props["note"] = "wrecked"
    for node in list(graph):
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.TENSOR:
                attribute.value.name = "wrecked"
        node.attributes.clear()
        node.metadata_props["note"] = "wrecked"


class TestExternal:
    def test_data_is_mapped_when_first_read(self, with_data, monkeypatch):
        model = load(with_data)
        tensor = model.graph.initializers["w"].const_value
        assert isinstance(tensor, ir.ExternalTensor)
        assert tensor.raw is None
        monkeypatch.chdir(with_data.parent.parent)
        np.testing.assert_array_equal(tensor.numpy().ravel(), np.arange(6))

    def test_a_relative_path_survives_a_change_of_folder(self, with_data, monkeypatch, tmp_path):
        monkeypatch.chdir(with_data.parent)
        model = load("m.onnx")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert model.graph.initializers["w"].const_value.numpy()[1, 2] == 5

    def test_subfolders_inner_links_and_missing_lengths_are_fine(self, with_data):
        folder = with_data.parent / "data"
        folder.mkdir()
        (with_data.parent / "w.bin").rename(folder / "w.bin")
        (with_data.parent / "link.bin").symlink_to(folder / "w.bin")
        for entries in (
            {"location": "data/w.bin"},
            {"location": "link.bin", "length": None},
            {"location": "./data/w.bin", "length": 0, "offset": None},
        ):
            write(linear(weight=external(**entries)), with_data)
            assert load(with_data).graph.initializers["w"].const_value.numpy()[0, 1] == 1

    @pytest.mark.parametrize(
        ("entries", "cause"),
        [
            ({"location": "../outside.bin"}, "outside"),
            ({"location": "sub/../../outside.bin"}, "outside"),
            ({"location": "sub/../w.bin"}, "outside"),
            ({"location": "/etc/hostname"}, "outside"),
            ({"location": "escape.bin"}, "outside"),
            ({"location": "through/outside.bin"}, "outside"),
            ({"location": "loop.bin"}, "can't be opened"),
            ({"location": "hard.bin"}, "hard links"),
            ({"location": "sub"}, "not a regular file"),
            ({"location": "pipe"}, "not a regular file"),
            ({"location": "missing.bin"}, "is missing"),
            ({"location": ""}, "names no data file"),
            ({"location": "a\0b"}, "can't be opened"),
            ({"location": "n" * 300}, "can't be opened"),
            ({"offset": 4}, "needs bytes 4 to 28"),
            ({"offset": 10**30}, "which has 24"),
            ({"offset": -4}, "not a number"),
            ({"length": "many"}, "not a number"),
            ({"length": 20}, "says 20 bytes"),
            ({"length": 28}, "says 28 bytes"),
        ],
    )
    @pytest.mark.parametrize("place", ["initializer", "subgraph", "attribute", "function"])
    def test_data_that_escapes_or_is_too_short(self, with_data, entries, cause, place):
        folder = with_data.parent / "model"
        (folder / "sub").mkdir(parents=True)
        data = (with_data.parent / "w.bin").read_bytes()
        (with_data.parent / "outside.bin").write_bytes(data)
        (folder / "w.bin").write_bytes(data)
        (folder / "escape.bin").symlink_to(with_data.parent / "outside.bin")
        (folder / "through").symlink_to(with_data.parent)
        (folder / "loop.bin").symlink_to(folder / "loop.bin")
        (folder / "hard.bin").write_bytes(data)
        os.link(folder / "hard.bin", folder / "other.bin")
        os.mkfifo(folder / "pipe")
        path = write(placed(external("e", **entries), place), folder / "m.onnx")
        text = refusal(path)
        assert cause in text
        assert str(path) in text
        assert ("'e'" if place in {"initializer", "subgraph"} else "'value'") in text

    def test_without_a_folder_there_is_no_data(self):
        for source in (linear(weight=external()), linear(weight=external()).SerializeToString()):
            assert "came without a folder" in refusal(source)

    def test_tensors_of_a_callers_model_are_looked_for(self, with_data):
        model = ir.load(with_data)
        np.testing.assert_array_equal(
            load(model).graph.initializers["w"].const_value.numpy().ravel(), np.arange(6)
        )
        (with_data.parent / "w.bin").write_bytes(b"short")
        assert "too short" in refusal(ir.load(with_data))
        (with_data.parent / "w.bin").unlink()
        assert "can't be opened" in refusal(ir.load(with_data))

    def test_a_tensor_without_elements_needs_no_data(self, with_data):
        tensor = external(length=None)
        tensor.dims[:] = [0, 3]
        model = load(write(linear(weight=tensor), with_data))
        assert model.graph.initializers["w"].const_value.numpy().shape == (0, 3)
        assert model.graph.initializers["w"].const_value.tobytes() == b""


def placed(tensor: TensorProto, place: str) -> onnx.ModelProto:
    """A model with `tensor` in some place."""
    proto = everything()
    if place == "initializer":
        proto.graph.initializer.append(tensor)
    elif place == "subgraph":
        branch = next(node for node in proto.graph.node if node.op_type == "If").attribute[0].g
        branch.initializer.append(tensor)
    else:
        constant = helper.make_node("Constant", [], ["e"], name="made")
        attribute = constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
        attribute.t.CopyFrom(tensor)
        scope = proto.graph if place == "attribute" else proto.functions[0]
        scope.node.append(constant)
    return proto


class TestRefused:
    def test_files_that_are_no_model(self, tmp_path):
        good = everything().SerializeToString()
        lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
        for content, cause in [
            (b"", "is empty"),
            (b"\x89PNG\r\n\x1a\n" + bytes(100), "PNG"),
            (b"PK\x03\x04rest", "zip archive"),
            (lfs, "git lfs pull"),
            (b"\x20\x00\x00\x00ORTM", "onnxruntime's own format"),
            (b"just some text\n", "not an ONNX model"),
            (b"<ir_version: 8>", "text"),
            (bytes(1000), "not an ONNX model"),
            (b"\x7a\x03abc", "not an ONNX model"),  # an unknown field: parses, and is empty
            (good[: len(good) // 2], "truncated or damaged"),
            (b"\x08\x08", "holds no graph"),
        ]:
            path = tmp_path / "m.onnx"
            path.write_bytes(content)
            text = refusal(path)
            assert str(path) in text
            assert cause in text

    def test_paths_that_are_no_file(self, tmp_path):
        assert "no such file" in refusal(tmp_path / "missing.onnx")
        assert "is a folder" in refusal(tmp_path)
        os.mkfifo(tmp_path / "pipe")
        assert "not a regular file" in refusal(tmp_path / "pipe")
        assert "can't be read" in refusal("a\0b")
        assert "can't be read" in refusal("n" * 300)

    def test_a_file_over_the_limit_is_not_read(self, tmp_path):
        with (tmp_path / "huge.onnx").open("wb") as file:
            file.truncate(2**31)
        assert "larger than 2 GB" in refusal(tmp_path / "huge.onnx")

    @pytest.mark.parametrize(
        ("options", "cause"),
        [
            ({"opset": 6}, "opset 6 is not supported"),
            ({"opset": 999}, "opset 999 is not supported"),
            ({"opset": -1}, "opset -1 is not supported"),
            ({"ir_version": 2}, "IR version 2"),
            ({"ir_version": 999}, "IR version 999"),
            ({"ir_version": 3}, "not in graph input|not a valid ONNX model"),
        ],
    )
    def test_versions(self, options, cause):
        proto = linear(**options)
        with pytest.raises(ModelError, match=cause):
            load(proto)

    def test_versions_of_an_ir_model_and_of_functions(self):
        model = ir.from_proto(linear())
        model.opset_imports[""] = 999
        assert "opset 999" in refusal(model)
        proto = everything()
        proto.functions[0].opset_import[0].version = 999
        assert "function 'Scale': opset 999" in refusal(proto)

    def test_what_would_be_lost_without_a_word(self):
        proto = linear()
        proto.graph.initializer.append(proto.graph.initializer[0])
        assert "'w'" in refusal(proto) or "w initializer" in refusal(proto)
        proto = linear()
        proto.opset_import.add(domain="ai.onnx", version=13)
        assert "two versions" in refusal(proto)
        proto = linear()
        proto.opset_import.pop()
        assert "imports no opset" in refusal(proto)
        proto = linear()
        proto.training_info.add().algorithm.name = "t"
        assert "training information" in refusal(proto)
        proto = linear()
        proto.graph.node[0].output[0] = "w"
        assert "single static assignment" in refusal(proto)
        proto = everything()
        proto.functions.append(proto.functions[0])
        assert "local" in refusal(proto)
        proto = linear()
        proto.graph.initializer[0].ClearField("name")
        refusal(proto)
        proto = linear()
        info = proto.graph.value_info.add(name="m")
        info.type.map_type.key_type = TensorProto.INT64
        info.type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
        node = helper.make_node("ZipMap", ["y"], ["m"], domain="ai.onnx.ml", classlabels_int64s=[0])
        proto.graph.node.append(node)
        proto.opset_import.add(domain="ai.onnx.ml", version=3)
        assert "zipmap=False" in refusal(proto)

    def test_broken_graphs(self):
        proto = linear()
        proto.graph.node[0].op_type = "NoSuchOperator"
        assert "NoSuchOperator" in refusal(proto)
        proto = linear()
        proto.graph.node.append(helper.make_node("Neg", ["later"], ["early"]))
        proto.graph.node.append(helper.make_node("Neg", ["y"], ["later"]))
        assert "topologically sorted" in refusal(proto)
        model = ir.from_proto(linear())
        late, soon = ir.node("Neg", [model.graph.outputs[0]]), None
        soon = ir.node("Neg", [late.outputs[0]])
        model.graph.extend([soon, late])
        assert "topological order" in refusal(model)

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda t: setattr(t, "raw_data", t.raw_data[:-1]),
            lambda t: setattr(t, "raw_data", t.raw_data + b"\0"),
            lambda t: t.ClearField("raw_data"),
            lambda t: t.float_data.append(1.0),
            lambda t: t.dims.append(10**12),
            lambda t: t.dims.__setitem__(0, -2),
            lambda t: setattr(t, "data_type", 0),
            lambda t: setattr(t, "data_type", 77),
            lambda t: setattr(t, "data_type", TensorProto.STRING),
            lambda t: (t.ClearField("raw_data"), t.float_data.extend([0.0] * 5)),
            lambda t: (t.ClearField("raw_data"), t.int32_data.extend([0] * 6)),
        ],
    )
    def test_tensors_that_do_not_hold_what_their_shape_needs(self, spoil):
        proto = linear()
        spoil(proto.graph.initializer[0])
        assert "initializer 'w'" in refusal(proto)

    def test_typed_data_of_every_width_is_understood(self):
        for dtype in ("float16", "int8", "uint32", "complex64", "complex128", "bool", "int64"):
            array = np.ones(3, dtype)
            tensor = helper.make_tensor(
                "extra", helper.np_dtype_to_tensor_dtype(array.dtype), [3], array.tolist()
            )
            assert not tensor.HasField("raw_data")
            proto = linear()
            proto.graph.initializer.append(tensor)
            held = load(proto).graph.initializers["extra"].const_value.numpy()
            np.testing.assert_array_equal(held, array)
        packed = helper.make_tensor("extra", TensorProto.INT4, [3], [1, -2, 3])
        proto = linear()
        proto.graph.initializer.append(packed)
        proto.ir_version = 10
        held = load(proto).graph.initializers["extra"].const_value.numpy()
        assert held.astype(int).tolist() == [1, -2, 3]

    @settings(
        max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(data=st.data())
    def test_damage_anywhere_is_a_model_error_or_a_model(self, data):
        content = bytearray(everything().SerializeToString())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(content)))
        for damaged in (bytes(content), bytes(content[:cut])):
            try:
                model = load(damaged)
            except ModelError as error:
                assert "\n" not in str(error)  # noqa: PT017 - most damage is refused, not all
            else:
                to_proto(model)
