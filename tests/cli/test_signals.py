from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from structopt_onnx.cli.signals import SignalReceived, ending_signals_raised

if sys.platform == "win32":
    pytest.skip("signals are those of POSIX", allow_module_level=True)

MODELS = Path(__file__).parents[2] / "models"
WORDS = ["--calibration", str(MODELS / "digits_cnn_calibration.npz"), "--max-error", "0.05"]


@pytest.fixture(autouse=True)
def _not_under_nohup():
    """What nohup starts ignores a hang-up, and so does all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, 143, b"terminated\n"), (signal.SIGHUP, 129, b"hung up\n")],
)
def test_a_signal_leaves_no_file_and_no_process_behind(tmp_path, number, code, said):
    output, temporary = tmp_path / "output", tmp_path / "temporary"
    output.mkdir()
    temporary.mkdir()
    model = str(MODELS / "digits_cnn.onnx")
    line = ["optimize", model, str(output / "o.onnx"), *WORDS, "--benchmark-seconds", "300"]
    with subprocess.Popen(
        [sys.executable, "-m", "structopt_onnx", *line],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that its processes can be counted
    ) as process:
        try:
            # The job of the measuring process is the last file to come.
            _wait_for(lambda: list(output.iterdir()) and list(temporary.glob("*/job.json")))
            time.sleep(0.3)
            process.send_signal(number)
            process.send_signal(number)  # a terminal may send it twice
            assert process.communicate(timeout=60)[1] == said
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == code
    assert list(output.iterdir()) == []
    assert list(temporary.iterdir()) == []
    _wait_for(lambda: not _is_alive(process.pid))


def _is_alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_handlers_are_given_back_and_a_signal_is_an_exception():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SignalReceived, match="terminated") as raised, ending_signals_raised():
        signal.raise_signal(signal.SIGTERM)
    assert raised.value.exit_code == 143
    assert not isinstance(raised.value, Exception)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_that_is_ignored_stays_so():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_signals_raised():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_sets_no_handlers():
    failures = []

    def enter() -> None:
        try:
            with ending_signals_raised():
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert failures == []


def test_a_signal_ends_a_command_with_its_exit_code(run, calls):
    calls.answer("optimize", lambda: signal.raise_signal(signal.SIGHUP))
    done = run("optimize", "a", "b")
    assert (done.code, done.out, done.err) == (129, "", "hung up\n")
