"""`optimize` gives the same model whoever computes the factorizations."""

from __future__ import annotations

import pickle
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import structopt_onnx as so

_MODELS = Path(__file__).resolve().parents[2] / "models"


class Pickling(Executor):
    """Does at once what is submitted, after a trip through bytes."""

    def __init__(self) -> None:
        self.submitted: list[str] = []

    def submit(self, fn, /, *args, **kwargs):
        fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs)))
        self.submitted.append(fn.__name__)
        future: Future = Future()
        future.set_result(pickle.loads(pickle.dumps(fn(*args, **kwargs))))
        return future


def _bytes(path: Path, name: str, executor: Executor | None) -> bytes:
    so.optimize(
        _MODELS / f"{name}.onnx",
        path,
        calibration=_MODELS / f"{name}_calibration.npz",
        max_error=0.1,
        minimize="parameters",
        benchmark=False,
        executor=executor,
    )
    return path.read_bytes()


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn", "digits_gru"])
def test_the_result_does_not_depend_on_the_executor(tmp_path, name):
    expected = _bytes(tmp_path / "alone.onnx", name, None)
    sent = Pickling()
    assert _bytes(tmp_path / "sent.onnx", name, sent) == expected
    assert sent.submitted
    with ThreadPoolExecutor(3) as threads:
        assert _bytes(tmp_path / "threads.onnx", name, threads) == expected


def test_a_dask_cluster_computes_the_factorizations(tmp_path):
    distributed = pytest.importorskip("distributed")
    expected = _bytes(tmp_path / "alone.onnx", "digits_mlp", None)
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = _bytes(tmp_path / "dask.onnx", "digits_mlp", client.get_executor())
    assert found == expected
