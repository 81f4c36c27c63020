"""On a device inputs are there before the clock starts, and the work is done before it stops."""

from __future__ import annotations

import ctypes

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime import arm, device_memory
from structopt_onnx.runtime.options import Provider, SessionSettings

FEED = {"x": (np.ones((1, 3), np.float32), None)}


class Session:
    """A session that only notes what it is asked for."""

    def __init__(self):
        self.calls = []

    def get_outputs(self):
        class Output:
            name = "y"
            type = "tensor(float)"

        return [Output]

    def io_binding(self):
        return self

    def bind_ortvalue_input(self, name, value):
        self.calls.append(("input", name, value))

    def bind_output(self, name, device):
        self.calls.append(("output", name, device))

    def synchronize_inputs(self):
        self.calls.append("inputs there")

    def run_with_iobinding(self, binding):
        self.calls.append("run")

    def synchronize_outputs(self):
        self.calls.append("done")


@pytest.fixture
def device(monkeypatch):
    session = Session()
    monkeypatch.setattr(arm, "open_session", lambda *_: session)

    class Values:
        @staticmethod
        def ortvalue_from_numpy(array, device):
            return f"{array.shape} on {device}"

    monkeypatch.setattr(arm.ort, "OrtValue", Values)
    return session


def test_a_run_on_a_device_ends_when_the_device_is_done(device, tmp_path):
    settings = SessionSettings(provider=Provider("CUDAExecutionProvider", device="cuda"))
    measured = arm.Arm(tmp_path / "m.onnx", [FEED], settings)
    assert device.calls == [
        ("input", "x", "(1, 3) on cuda"), ("output", "y", "cuda"), "inputs there", "run", "done",
    ]  # fmt: skip
    device.calls.clear()
    cpu_ms, wall_ms = measured.sample(0, 3)
    assert device.calls == ["run", "done"] * 3
    assert wall_ms > 0
    assert cpu_ms >= 0


def test_on_the_host_nothing_waits(device, tmp_path):
    arm.Arm(tmp_path / "m.onnx", [FEED], SessionSettings())
    assert device.calls == [("input", "x", "(1, 3) on cpu"), ("output", "y", "cpu"), "run"]


def test_a_session_without_the_provider_is_an_error(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]> g (float[1,3] x) => (float[1,3] y) { y = Relu(x) }
    """), path)  # fmt: skip
    assert "CUDAExecutionProvider" not in ort.get_available_providers()
    settings = SessionSettings(provider=Provider("CUDAExecutionProvider"))
    with (
        pytest.warns(UserWarning, match="not in available provider"),
        pytest.raises(ModelError, match="made a session without CUDAExecutionProvider"),
    ):
        arm.open_session(path, "m", settings)


class Driver:
    """NVML with one GPU of which 5 MiB are in use."""

    def __init__(self, code=0):
        self.code = code

    def nvmlInit_v2(self):  # noqa: N802 - NVML's name
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):  # noqa: N802 - NVML's name
        assert index == 0
        return 0

    def nvmlDeviceGetMemoryInfo(self, device, memory):  # noqa: N802 - NVML's name
        memory._obj.used = 5 << 20
        return self.code


def test_memory_of_a_gpu_is_its_drivers_count(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert device_memory.device_memory_used() == 5 << 20
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver(code=3))
    assert device_memory.device_memory_used() is None


def test_without_a_driver_no_memory_is_told(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert device_memory.device_memory_used() is None
