"""A provider on an Android phone, by adb and the tools of an onnxruntime built for it.

The tools are the user's: a folder with ``onnxruntime_perf_test`` and ``onnx_test_runner`` of one
build, with the libraries that they need (``libonnxruntime.so``, for QNN those of its SDK).
"""

from __future__ import annotations

import csv
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import onnx.numpy_helper

from structopt_onnx.runtime.providers.fixed import data_files
from structopt_onnx.runtime.providers.placement import logged
from structopt_onnx.runtime.providers.ran import Ran
from structopt_onnx.runtime.providers.status import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from structopt_onnx.runtime.providers.case import Case
    from structopt_onnx.runtime.providers.catalogue import ProviderSpec

PERF_TEST = "onnxruntime_perf_test"
TEST_RUNNER = "onnx_test_runner"

_RUNS = 50
_PATIENCE_S = 300.0
_REMOTE = "/data/local/tmp"


def has_phone_tools(packages: str) -> bool:
    """Whether a folder holds tools for a phone."""
    return bool(packages) and (Path(packages) / PERF_TEST).is_file()


def run_on_phone(spec: ProviderSpec, case: Case, folder: Path, tools: Path) -> Ran:
    """Compare outputs on the phone, then time runs there; nothing of it is left behind.

    Parameters
    ----------
    spec
        The provider.
    case
        The model, its inputs, and the outputs that they should give.
    folder
        Where to write what is of use until the end.
    tools
        The folder with the tools.

    Raises
    ------
    Unavailable
        Without a phone or a tool, or when the model fails or gives other values there.
    """
    adb = Adb.found()
    for tool in (PERF_TEST, TEST_RUNNER):
        if not (tools / tool).is_file():
            raise Unavailable(f"{tool} is not in {tools.name}")
    pushed = folder / "phone"
    _write_case(pushed / "model", case)
    remote = f"{_REMOTE}/structopt-onnx-{uuid4().hex[:8]}"
    try:
        adb.call("shell", f"mkdir -p {remote}")
        adb.call("push", f"{tools}/.", f"{remote}/tools")
        adb.call("push", str(pushed), f"{remote}/cases")
        adb.call("shell", f"chmod 755 {remote}/tools/{PERF_TEST} {remote}/tools/{TEST_RUNNER}")
        adb.shell(remote, _compare_command(spec, case.expected, remote))
        # onnxruntime on Android logs to the system, whose log is the user's: it is read from a
        # second of the phone's clock on. logcat takes a number with a point for one (Android 7).
        start = adb.call("shell", "date +%s").strip()
        said = adb.shell(remote, _time_command(spec, remote))
        log = said + adb.call("logcat", "-d", "-T", f"{start}.000")
        adb.call("pull", f"{remote}/times.csv", str(pushed / "times.csv"))
    finally:
        adb.try_call("shell", f"rm -rf {remote}")
    return Ran(
        placement=logged(log, spec.key),
        outputs=(),
        engine=f"{adb.model()}, by adb",
        checked=True,
        times_ms=_times(pushed / "times.csv"),
    )


@dataclass(frozen=True)
class Adb:
    """Android's debug bridge with one phone attached."""

    program: str

    @classmethod
    def found(cls) -> Adb:
        """Look for the program and a phone.

        Raises
        ------
        Unavailable
            When either is missing.
        """
        program = shutil.which("adb")
        if program is None:
            raise Unavailable("adb is not installed")
        bridge = cls(program)
        state = bridge.call("get-state").strip()
        if state != "device":
            raise Unavailable(f"adb: the phone is {state or 'not there'}")
        return bridge

    def call(self, *words: str) -> str:
        """Run one command of adb and return what it said.

        Raises
        ------
        Unavailable
            When it fails.
        """
        try:
            done = subprocess.run(  # noqa: S603 - adb itself, no shell here
                [self.program, *words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"adb {words[0]}: no result after {_PATIENCE_S:.0f} s") from error
        if done.returncode != 0:
            lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
            said = lines[-1] if lines else f"exit code {done.returncode}"
            raise Unavailable(f"adb {words[0]}: {said}")
        return done.stdout

    def try_call(self, *words: str) -> None:
        """Run a command whose failure changes nothing."""
        try:
            self.call(*words)
        except Unavailable:
            return

    def shell(self, remote: str, command: Sequence[str]) -> str:
        """Run a tool of the folder on the phone, where it finds its libraries."""
        tools = f"{remote}/tools"
        found = f"LD_LIBRARY_PATH={tools} ADSP_LIBRARY_PATH={tools}"
        return self.call("shell", f"cd {tools} && {found} {shlex.join(command)}")

    def model(self) -> str:
        """Return what the phone calls itself."""
        return self.call("shell", "getprop ro.product.model").strip() or "phone"


def _compare_command(
    spec: ProviderSpec, expected: Sequence[Mapping[str, npt.NDArray[Any]]], remote: str
) -> list[str]:
    """One model at a time; absolute errors against the scale of the outputs."""
    floats = [a for run in expected for a in run.values() if a.dtype.kind == "f" and a.size]
    scale = max((float(np.abs(array).max()) for array in floats), default=1.0)
    return [
        f"./{TEST_RUNNER}", "-e", spec.name, "-j", "1", "-c", "1", *_options(spec),
        "-t", f"{spec.tolerance:g}", "-a", f"{spec.tolerance * scale:g}", f"{remote}/cases",
    ]  # fmt: skip


def _time_command(spec: ProviderSpec, remote: str) -> list[str]:
    return [
        f"./{PERF_TEST}", "-e", spec.name, "-m", "times", "-r", str(_RUNS), "-v",
        *_options(spec), f"{remote}/cases/model/model.onnx", f"{remote}/times.csv",
    ]  # fmt: skip


def _options(spec: ProviderSpec) -> list[str]:
    """Name the backend; a phone knows its own chip."""
    return ["-i", "backend_path|libQnnHtp.so"] if spec.name == "qnn" else []


def _write_case(place: Path, case: Case) -> None:
    """Lay a model out as onnx does its test cases."""
    place.mkdir(parents=True)
    shutil.copyfile(case.path, place / "model.onnx")
    for data in data_files(case.path):
        shutil.copyfile(data, place / data.name)
    for number, (feed, outputs) in enumerate(zip(case.feeds, case.expected, strict=True)):
        folder = place / f"test_data_set_{number}"
        folder.mkdir()
        for kind, arrays in (("input", feed), ("output", outputs)):
            for index, (name, array) in enumerate(arrays.items()):
                tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
                (folder / f"{kind}_{index}.pb").write_bytes(tensor.SerializeToString())


def _times(path: Path) -> tuple[float, ...]:
    """Read milliseconds per run: the second column, in seconds."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return tuple(float(row[1]) * 1e3 for row in csv.reader(file) if len(row) > 1)
    except (OSError, ValueError) as error:
        raise Unavailable(f"{PERF_TEST} wrote no times that can be read") from error
