from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from structopt_onnx.errors import ModelError, UsageError, ValidationFailed
from structopt_onnx.model import encoding
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save, serialized_size, to_proto

ROOT = Path(__file__).parents[2]


def linear(value: float, rows: int = 64) -> onnx.ModelProto:
    """y = x W + b, where W is full of `value` and large enough for a data file."""
    float_ = TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", float_, ["N", rows])],
        [helper.make_tensor_value_info("y", float_, ["N", 16])],
        [
            numpy_helper.from_array(np.full((rows, 16), value, np.float32), "w"),
            numpy_helper.from_array(np.full(16, value, np.float32), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weight(path: Path) -> float:
    values = np.unique(load(path).graph.initializers["w"].const_value.numpy())
    assert values.size == 1
    return float(values[0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def data_file(path: Path) -> Path:
    proto = onnx.load(path, load_external_data=False)
    locations = {e.value for t in proto.graph.initializer for e in t.external_data[:1]}
    (location,) = locations
    return path.parent / location


class TestOneFile:
    def test_what_is_read_is_what_was_written(self, tmp_path):
        target = tmp_path / "out.onnx"
        assert save(load(linear(2)), target) == target
        assert names(tmp_path) == ["out.onnx"]
        assert onnx.load(target) == to_proto(load(linear(2)))

    def test_the_same_model_gives_the_same_bytes(self, tmp_path):
        for external in (False, True):
            paths = [tmp_path / f"{external}{i}" / "m.onnx" for i in range(2)]
            for path in paths:
                path.parent.mkdir()
                save(load(linear(2)), path, external_data=external)
            assert names(paths[0].parent) == names(paths[1].parent)
            for name in names(paths[0].parent):
                first, second = (path.with_name(name).read_bytes() for path in paths)
                assert first == second

    def test_saving_changes_neither_the_model_nor_its_tensors(self, tmp_path):
        model = load(linear(2))
        shared = ir.Tensor(np.ones((64, 16), np.float32), name="another name")
        model.graph.initializers["w"].const_value = shared
        before = [*model.graph], [*model.graph.initializers.values()]
        for external in (False, True):
            save(model, tmp_path / "out.onnx", external_data=external)
        assert ([*model.graph], [*model.graph.initializers.values()]) == before
        assert model.graph.initializers["w"].const_value is shared
        assert shared.name == "another name"

    def test_no_byte_is_added_to_a_model_that_did_not_change(self, tmp_path):
        proto = linear(2)
        path = tmp_path / "in.onnx"
        path.write_bytes(proto.SerializeToString())
        out = save(load(path), tmp_path / "out.onnx")
        assert out.stat().st_size <= path.stat().st_size

    def test_the_size_is_known_beforehand(self, tmp_path):
        for proto in (linear(2), linear(3, rows=5000)):
            path = save(load(proto), tmp_path / "out.onnx")
            assert abs(serialized_size(load(proto)) - path.stat().st_size) < 20

    def test_mode_and_links_are_kept(self, tmp_path):
        real = tmp_path / "real" / "out.onnx"
        real.parent.mkdir()
        save(load(linear(1)), real)
        new = real.stat().st_mode & 0o777
        assert new == 0o666 & ~umask()
        real.chmod(0o640)
        link = tmp_path / "link.onnx"
        link.symlink_to("real/out.onnx")
        assert save(load(linear(2)), link) == link
        assert link.is_symlink()
        assert weight(real) == 2
        assert real.stat().st_mode & 0o777 == 0o640
        assert names(real.parent) == ["out.onnx"]
        with pytest.raises(UsageError, match="is a link"):
            save(load(linear(3)), link, external_data=True)
        assert weight(real) == 2


def umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


class TestTwoFiles:
    def test_the_data_file_is_named_by_its_content(self, tmp_path):
        target = tmp_path / "out.onnx"
        save(load(linear(2)), target, external_data=True)
        (data,) = [name for name in names(tmp_path) if name != "out.onnx"]
        assert data.startswith("out.")
        assert data.endswith(".data")
        assert len(data) == len("out..data") + 16
        assert (tmp_path / data).read_bytes() == np.full(64 * 16, 2, np.float32).tobytes()
        proto = onnx.load(target, load_external_data=False)
        assert not proto.graph.initializer[1].external_data  # 64 bytes stay inline
        onnx.checker.check_model(str(target))

    def test_the_target_may_be_the_source(self, tmp_path):
        target = tmp_path / "m.onnx"
        save(load(linear(1)), target, external_data=True)
        first = data_file(target)
        model = load(target)  # nothing mapped yet
        bias = ir.tensor(np.full(16, 7, np.float32), name="b")
        model.graph.initializers["b"].const_value = bias
        save(model, target, external_data=True)
        assert data_file(target) == first  # the same content
        old = load(target)
        scaled = ir.LazyTensor(
            lambda: ir.tensor(old.graph.initializers["w"].const_value.numpy() * 5),
            dtype=ir.DataType.FLOAT,
            shape=ir.Shape([64, 16]),
        )
        model.graph.initializers["w"].const_value = scaled
        save(model, target, external_data=True)
        assert weight(target) == 5
        assert not first.exists()
        assert names(tmp_path) == sorted(["m.onnx", data_file(target).name])

    def test_a_model_outlives_the_data_file_it_was_loaded_from(self, tmp_path):
        target = tmp_path / "m.onnx"
        save(load(linear(1)), target, external_data=True)
        model = load(target)
        clone = model.clone()
        clone.graph.initializers["b"].const_value = ir.tensor(np.zeros(16, np.float32))
        save(clone, target)
        assert names(tmp_path) == ["m.onnx"]
        for survivor in (model, clone):
            assert survivor.graph.initializers["w"].const_value.numpy().max() == 1
            save(survivor, tmp_path / "again.onnx", external_data=True)
            assert weight(tmp_path / "again.onnx") == 1

    def test_data_that_another_model_names_stays(self, tmp_path):
        target = tmp_path / "m.onnx"
        save(load(linear(1)), target, external_data=True)
        (tmp_path / "copy.onnx").write_bytes(target.read_bytes())
        foreign = tmp_path / "m.0123456789abcdef.data"
        foreign.write_bytes(b"not named by m.onnx, and young")
        save(load(linear(2)), target, external_data=True)
        assert weight(tmp_path / "copy.onnx") == 1
        assert weight(target) == 2
        assert foreign.exists()

    def test_data_files_of_the_user_are_never_removed(self, tmp_path):
        target = tmp_path / "m.onnx"
        onnx.save(linear(1), target, save_as_external_data=True, location="m.data")
        save(load(target), target)
        assert names(tmp_path) == ["m.data", "m.onnx"]

    def test_tensors_of_subgraphs_and_constants_go_along(self, tmp_path):
        proto = onnx.parser.parse_model("""
            <ir_version: 8, opset_import: ["" : 17]>
            g (bool c, float[400] x) => (float[400] y) {
              k = Constant <value = float[1] {0.0}> ()
              z = Add (x, k)
              y = If (c) < then_branch = t () => (float[400] a) { a = Add (z, w) },
                           else_branch = e () => (float[400] a) { a = Neg (z) } >
            }""")
        wide = np.arange(400, dtype=np.float32)
        branch = proto.graph.node[2].attribute[0].g
        branch.initializer.append(numpy_helper.from_array(wide, "w"))
        proto.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(wide))
        for version in (3, 8):
            proto.ir_version = version
            if version == 3:
                branch.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [400]))
            path = save(load(proto), tmp_path / "m.onnx", external_data=True)
            assert data_file_sizes(tmp_path) == [3200]
            again = to_proto(load(path))
            values = numpy_helper.to_array(again.graph.node[2].attribute[0].g.initializer[0])
            np.testing.assert_array_equal(values, wide)
            values = numpy_helper.to_array(again.graph.node[0].attribute[0].t)
            np.testing.assert_array_equal(values, wide)
            del branch.input[:]

    def test_packed_strings_and_small_tensors(self, tmp_path):
        proto = linear(1)
        odd = helper.make_tensor("odd", TensorProto.INT4, [3001], [i % 8 for i in range(3001)])
        words = helper.make_tensor("words", TensorProto.STRING, [400], [b"word"] * 400)
        proto.graph.initializer.extend([odd, words])
        proto.ir_version = 10
        again = load(save(load(proto), tmp_path / "m.onnx", external_data=True))
        assert isinstance(again.graph.initializers["odd"].const_value, ir.ExternalTensor)
        values = again.graph.initializers["odd"].const_value.numpy().astype(int)
        assert values.tolist() == [i % 8 for i in range(3001)]
        assert again.graph.initializers["words"].const_value.numpy().tolist() == [b"word"] * 400

    def test_two_files_by_themselves_when_one_would_be_too_large(self, tmp_path, monkeypatch):
        target = tmp_path / "out.onnx"
        for module in ("encoding", "saving"):
            name = f"structopt_onnx.model.{module}.PROTOBUF_LIMIT"
            monkeypatch.setattr(name, encoding.SIZE_MARGIN + 2000)
        save(load(linear(2)), target)
        assert len(names(tmp_path)) == 2
        assert weight(target) == 2
        with pytest.raises(ModelError, match="more than the 2 GB"):
            save(load(linear(2)), target, external_data=False)
        with pytest.raises(ModelError, match="save it with external data"):
            to_proto(load(linear(2)))

    def test_memory_does_not_grow_with_the_weights(self, tmp_path):
        if sys.platform != "linux":
            pytest.skip("reads /proc")
        rows = 16 * 1024  # four weights of 16 MiB each
        float_ = TensorProto.FLOAT
        tensors, nodes = [], []
        for index in range(4):
            tensor = TensorProto(name=f"w{index}", data_type=float_, dims=[rows, 256])
            tensor.data_location = TensorProto.EXTERNAL
            size = rows * 256 * 4
            for key, value in (("location", "in.bin"), ("offset", index * size), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            nodes.append(helper.make_node("ReduceMax", [f"w{index}"], [f"y{index}"], keepdims=0))
        outputs = [helper.make_tensor_value_info(f"y{i}", float_, []) for i in range(4)]
        graph = helper.make_graph(nodes, "g", [], outputs, tensors)
        opsets = [helper.make_opsetid("", 17)]
        proto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        (tmp_path / "in.onnx").write_bytes(proto.SerializeToString())
        with (tmp_path / "in.bin").open("wb") as file:
            file.truncate(4 * rows * 256 * 4)
        script = """
import resource, sys
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
save(load(sys.argv[1]), sys.argv[2], external_data=True)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
        grown = run(script, tmp_path / "in.onnx", tmp_path / "out.onnx")
        assert int(grown) < 12 * 1024  # KiB, less than one weight
        assert data_file_sizes(tmp_path) == [4 * rows * 256 * 4]


def load_again(model: ir.Model) -> ir.Model:
    """Undo the mapping of tensors that a failed save may have made."""
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.release()
    return model


def data_file_sizes(folder: Path) -> list[int]:
    return [path.stat().st_size for path in folder.iterdir() if path.suffix == ".data"]


def run(script: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestRefused:
    @pytest.mark.parametrize("external", [False, True])
    @pytest.mark.parametrize("error", [ValidationFailed("differs"), KeyboardInterrupt()])
    def test_what_the_check_raises_leaves_the_target_alone(self, tmp_path, external, error):
        target = tmp_path / "out.onnx"
        seen = []

        def check(path: Path) -> None:
            seen.append(weight(path))
            assert path.parent == tmp_path
            assert path.name.startswith(".out.onnx.")
            assert path.suffix == ".onnx"
            raise error

        for existing in (False, True):
            before = {path: path.read_bytes() for path in tmp_path.iterdir()}
            with pytest.raises(type(error)):
                save(load(linear(2)), target, external_data=external, check=check)
            assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
            if not existing:
                save(load(linear(1)), target, external_data=True)
        assert seen == [2, 2]

    def test_a_failed_check_keeps_data_that_the_target_uses(self, tmp_path):
        target = tmp_path / "out.onnx"
        save(load(linear(2)), target, external_data=True)

        def check(_: Path) -> None:
            raise ValidationFailed("differs")

        with pytest.raises(ValidationFailed):
            save(load(linear(2)), target, external_data=True, check=check)
        assert weight(target) == 2

    def test_targets_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("x")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to("loop")
        before = names(tmp_path)
        for target, cause in [
            (tmp_path, "is a folder"),
            (tmp_path / "missing" / "out.onnx", "does not exist"),
            (tmp_path / "file" / "out.onnx", "does not exist"),
            (tmp_path / "pipe", "not a regular file"),
            (Path("/dev/null"), "not a regular file"),
            (tmp_path / "loop", "can't be written"),
            (tmp_path / ("n" * 250), "can't be written"),
            ("a\0b", "null character"),
        ]:
            for external in (False, True):
                with pytest.raises(UsageError, match=cause) as caught:
                    save(load(linear(2)), target, external_data=external)
                assert "\n" not in str(caught.value)
        assert names(tmp_path) == before

    @pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that nobody may write to")
    def test_a_folder_that_takes_no_files(self):
        for external in (False, True):
            with pytest.raises(UsageError, match="can't be written"):
                save(load(linear(2)), Path("/proc/out.onnx"), external_data=external)

    def test_a_full_disk(self, tmp_path):
        save(load(linear(1, rows=2000)), tmp_path / "out.onnx")
        script = """
import resource, sys
from structopt_onnx.errors import UsageError
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save
model = load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for external in (False, True):
    try:
        save(model, sys.argv[1], external_data=external)
    except UsageError as error:
        print(error)
"""
        lines = run(script, tmp_path / "out.onnx").splitlines()
        assert len(lines) == 2
        assert all("can't be written (File too large)" in line for line in lines)
        assert names(tmp_path) == ["out.onnx"]
        assert weight(tmp_path / "out.onnx") == 1

    def test_data_that_is_gone(self, tmp_path):
        source = save(load(linear(1)), tmp_path / "in.onnx", external_data=True)
        model = load(source)
        for spoil in (lambda p: p.write_bytes(b"short"), Path.unlink):
            spoil(data_file(source))
            before = names(tmp_path)
            for external in (False, True):
                with pytest.raises(ModelError, match=r"'w': its data can't be read any more"):
                    save(load_again(model), tmp_path / "out.onnx", external_data=external)
            assert names(tmp_path) == before

    def test_broken_models(self, tmp_path):
        model = load(linear(1))
        model.graph.initializers["w"].const_value = None
        with pytest.raises(ModelError, match="'w' has no data"):
            save(model, tmp_path / "out.onnx")
        model = load(linear(1))
        model.graph[0].op_type = "NoSuchOperator"
        with pytest.raises(ModelError, match=r"as it would be written.*NoSuchOperator"):
            save(model, tmp_path / "out.onnx")
        model = load(linear(1))
        late = ir.node("Neg", [model.graph.outputs[0]])
        model.graph.extend([ir.node("Neg", [late.outputs[0]]), late])
        with pytest.raises(ModelError, match="can't be written"):
            save(model, tmp_path / "out.onnx")
        model = load(linear(1))
        wrong = ir.LazyTensor(
            lambda: ir.tensor(np.zeros(5, np.float32)), ir.DataType.FLOAT, ir.Shape([64, 16])
        )
        model.graph.initializers["w"].const_value = wrong
        for external in (False, True):
            with pytest.raises(ModelError, match="'w'"):
                save(model, tmp_path / "out.onnx", external_data=external)
        assert names(tmp_path) == []


KILLED = """
import json, os, resource, shutil, signal, sys, time
from pathlib import Path
from structopt_onnx.model.loading import load
from structopt_onnx.model.saving import save

old, new, folder, external, same = sys.argv[1:]
folder = Path(folder)
STEPS = {"open", "os.rename", "os.remove", "os.chmod", "os.listdir", "os.scandir", "mmap.__new__"}
report = []

def attempt(prepare):
    '''Save in a child that is killed on the way; say how it ended and what is left.'''
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    target = folder / "m.onnx"
    save(load(old), target, external_data=external == "1")
    if same == "1":
        model = load(target)
        model.graph.initializers["w"].const_value = load(new).graph.initializers["w"].const_value
    else:
        model = load(new)
    child = os.fork()
    if child == 0:
        prepare()
        save(model, target, external_data=external == "1")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    value = sorted(set(load(target).graph.initializers["w"].const_value.numpy().ravel().tolist()))
    leftovers = len(list(folder.iterdir()))
    past = time.time() - 7200
    for path in folder.iterdir():
        os.utime(path, (past, past))
    save(load(old), target, external_data=external == "1")
    left = len(list(folder.iterdir()))
    report.append([os.WIFSIGNALED(status), value, leftovers, left])
    return os.WIFSIGNALED(status)

def at_step(last):
    count = 0
    def hook(event, arguments):
        nonlocal count
        if event in STEPS and str(folder) in str(arguments[0]) or event == "mmap.__new__":
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    return lambda: sys.addaudithook(hook)

def at_byte(limit):
    def prepare():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return prepare

step = 1
while attempt(at_step(step)):
    step += 1
for limit in (0, 1, 100, 2000, 4096):
    attempt(at_byte(limit))
print(json.dumps(report))
"""


@pytest.mark.skipif(os.name != "posix", reason="forks")
@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_a_kill_at_any_moment_leaves_a_whole_model(tmp_path, external, same):
    old = save(load(linear(1)), tmp_path / "old.onnx")
    new = save(load(linear(2)), tmp_path / "new.onnx")
    folder = tmp_path / "folder"
    report = json.loads(run(KILLED, old, new, folder, int(external), int(same)))
    killed = [value for was_killed, value, _, _ in report if was_killed]
    assert len(killed) > (15 if external else 8)
    assert all(value in ([1.0], [2.0]) for value in killed)
    assert [1.0] in killed
    assert any(count > 1 + external for _, _, count, _ in report)  # kills do leave something
    assert {left for _, _, _, left in report} == {1 + external}  # and the next save removes it


def test_young_leftovers_may_belong_to_a_save_under_way(tmp_path):
    young, old, foreign = (
        tmp_path / f".m.onnx.{tag}" for tag in ("0123abcd.onnx", "4567abcd.data", "backup.onnx")
    )
    for path in (young, old, foreign):
        path.write_bytes(b"")
    past = time.time() - 4000
    for path in (old, foreign):
        os.utime(path, (past, past))
    save(load(linear(1)), tmp_path / "m.onnx")
    assert names(tmp_path) == sorted([young.name, foreign.name, "m.onnx"])
