from __future__ import annotations

import sys
import textwrap

import numpy as np
import onnx
import pytest

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.errors import DataError, UsageError
from structopt_onnx.runtime.session import TensorInfo

X = TensorInfo("x", np.dtype(np.float32), ("N", 3), "tensor(float)")
IDS = TensorInfo("ids", np.dtype(np.int64), (None, "T"), "tensor(int64)")


def rows(count, offset=0.0):
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3) + np.float32(offset)


@pytest.fixture
def factory_module(tmp_path, monkeypatch):
    """Write a module into the current directory; it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    names = []

    def write(name, source):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        names.append(name)

    before = list(sys.path)
    yield write
    assert sys.path == before
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("as_text", [True, False])
def test_an_npz_file(tmp_path, as_text):
    path = tmp_path / "calibration.npz"
    np.savez(path, x=rows(4), __source__=np.array(["a", "a", "b", "c"]))
    samples = load_samples(str(path) if as_text else path, [X])
    assert samples.origin == "calibration.npz"
    assert not samples.synthetic
    assert len(samples) == 4
    assert samples.sources.tolist() == ["a", "a", "b", "c"]
    np.testing.assert_array_equal(samples[2]["x"], rows(4)[2:3])


def test_a_folder_of_npz_files_has_one_source_per_file(tmp_path):
    np.savez(tmp_path / "b.npz", ids=np.zeros((2, 5), np.int64))
    np.savez(tmp_path / "a.npz", ids=np.ones((3, 7), np.int64))
    np.savez(tmp_path / "c.npz", ids=np.ones((2, 1), np.int64), __source__=np.array([1, 2]))
    samples = load_samples(tmp_path, [IDS])
    assert samples.sources.tolist() == ["a", "a", "a", "b", "b", "1", "2"]
    assert [feed["ids"].shape for feed in samples][2:4] == [(1, 7), (1, 5)]


def test_a_folder_of_onnx_test_data(tmp_path):
    for k in (0, 1, 2, 10):
        folder = tmp_path / f"test_data_set_{k}"
        folder.mkdir()
        for number, array in enumerate([rows(2, k), np.full((1, k + 1), k)]):
            onnx.save_tensor(onnx.numpy_helper.from_array(array), folder / f"input_{number}.pb")
        (folder / "output_0.pb").write_bytes(b"ignored")
    (tmp_path / "model.onnx").write_bytes(b"ignored")
    samples = load_samples(tmp_path, [X, IDS])
    assert [int(feed["ids"][0, 0]) for feed in samples] == [0, 1, 2, 10]
    assert samples[3]["ids"].shape == (1, 11)
    np.testing.assert_array_equal(samples[1]["x"], rows(2, 1))
    assert samples.sources is None

    alone = load_samples(tmp_path / "test_data_set_2", [X, IDS])
    assert len(alone) == 1


def test_test_data_that_does_not_fit(tmp_path):
    folder = tmp_path / "test_data_set_0"
    folder.mkdir()
    onnx.save_tensor(onnx.numpy_helper.from_array(rows(2)), folder / "input_1.pb")
    with pytest.raises(DataError, match=r"input_1\.pb: the model has only 1 inputs: x"):
        load_samples(tmp_path, [X])
    (folder / "input_1.pb").rename(folder / "input_0.pb")
    with pytest.raises(DataError, match="test_data_set_0 does not fit the model: 'ids' is missing"):
        load_samples(tmp_path, [X, IDS])
    (folder / "input_0.pb").write_bytes(b"\xff\xff not a tensor")
    with pytest.raises(DataError, match=r"input_0\.pb: can't be read as a tensor"):
        load_samples(tmp_path, [X])


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04 cut short", b"no archive at all", b"\x80\x04K\x01."]
)
def test_a_broken_file_is_an_error_that_names_it(tmp_path, content):
    path = tmp_path / "broken.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"broken\.npz: not an npz archive") as caught:
        load_samples(path, [X])
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_an_error(tmp_path):
    path = tmp_path / "cut.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32))
    content = bytearray(path.read_bytes())
    content[60:90] = bytes(30)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"cut\.npz: can't be read as npz"):
        load_samples(path, [X])


def test_pickled_objects_are_never_loaded(tmp_path):
    path = tmp_path / "pickled.npz"
    np.savez(path, x=np.array([{"a": 1}, None], dtype=object))
    with pytest.raises(DataError, match="Object arrays cannot be loaded"):
        load_samples(path, [X])


def test_a_bare_array_and_an_absent_file(tmp_path):
    np.save(tmp_path / "one.npy", rows(2))
    with pytest.raises(DataError, match="not an npz archive"):
        load_samples(tmp_path / "one.npy", [X])
    with pytest.raises(DataError, match="no such calibration file or folder"):
        load_samples(tmp_path / "absent.npz", [X])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"neither npz files nor test_data_set_\* folders"):
        load_samples(tmp_path / "empty", [X])


def test_a_factory_may_yield_feeds_or_return_arrays(factory_module):
    factory_module(
        "made_here",
        """
        import numpy as np

        def feeds():
            import helper_of_made_here
            for k in range(3):
                yield {"x": np.full((k + 1, 3), k, np.float32)}

        def arrays():
            return {"x": np.ones((5, 3), np.float32), "__source__": np.arange(5)}
        """,
    )
    factory_module("helper_of_made_here", "")
    samples = load_samples("made_here:feeds", [X])
    assert samples.origin == "made_here:feeds"
    assert [feed["x"].shape[0] for feed in samples] == [1, 2, 3]
    samples = load_samples("made_here:arrays", [X])
    assert len(samples) == 5
    assert samples.sources.tolist() == ["0", "1", "2", "3", "4"]


def test_a_factory_that_fails_is_a_usage_error(factory_module):
    factory_module(
        "bad_here",
        """
        constant = 3
        def fails():
            yield {}
            raise ValueError("first\\nsecond")
        """,
    )
    factory_module("raises_here", "import nothing_of_this_name")
    factory_module("syntax_here", "def (")
    for text, told in [
        ("absent_here:feeds", "no such file, and no module named absent_here"),
        ("raises_here:feeds", "no module named nothing_of_this_name"),
        ("syntax_here:feeds", "import failed: SyntaxError"),
        ("bad_here:absent", "module bad_here has no function absent"),
        ("bad_here:constant", "module bad_here has no function constant"),
        ("bad_here:fails", "the factory failed: ValueError: first"),
    ]:
        with pytest.raises(UsageError, match=told) as caught:
            load_samples(text, [X])
        assert str(caught.value).startswith(text)
        assert "\n" not in str(caught.value)


def test_a_factory_of_something_else_is_a_data_error(factory_module):
    factory_module("odd_here", "def number():\n    return 3\ndef texts():\n    return ['a']\n")
    with pytest.raises(DataError, match="expected a mapping of arrays or feeds, found int"):
        load_samples("odd_here:number", [X])
    with pytest.raises(DataError, match="sample 0 is a str"):
        load_samples("odd_here:texts", [X])


def test_data_in_memory_is_not_changed():
    data = {"x": rows(4), "__source__": np.array(["a", "b", "c", "c"])}
    samples = load_samples(data, [X])
    assert set(data) == {"x", "__source__"}
    assert np.shares_memory(samples[0]["x"], data["x"])
    assert load_samples(samples, [X]) is samples
    with pytest.raises(DataError, match="arrays in memory, sample 1, does not fit"):
        load_samples([{"x": rows(1)}, {"x": np.zeros(3, np.float32)}], [X])
    with pytest.raises(DataError, match="holds no samples"):
        load_samples([], [X])


def test_sources_must_name_every_sample():
    with pytest.raises(DataError, match=r"__source__ has shape \[3\].*4 samples"):
        load_samples({"x": rows(4), "__source__": np.arange(3)}, [X])
