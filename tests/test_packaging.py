"""The package as users get it: sdist, wheel from the sdist, run outside the checkout."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def run(*command: str, cwd: Path, path: Path | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build an sdist from the checkout and a wheel from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    checkout = folder / "checkout"  # building leaves folders behind
    checkout.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, checkout)
    for name in ("structopt_onnx", "passes"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, checkout / name, ignore=ignored)
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder))
    run(*build, "--sdist", str(checkout), cwd=folder)
    source = folder / "source"
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(source, filter="data")
    run(*build, "--wheel", str(next(source.iterdir())), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist: Path) -> Path:
    """Unpack the wheel where only PYTHONPATH finds it."""
    site = dist / "site"
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        wheel.extractall(site)
    return site


def test_the_wheel_holds_the_package_and_nothing_else_at_top_level(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"structopt_onnx"}
    assert (installed / "structopt_onnx" / "py.typed").is_file()


def test_every_module_and_script_of_the_checkout_is_in_the_wheel(installed: Path) -> None:
    for folder, inside in (("structopt_onnx", "."), ("passes", "passes")):
        for pattern in ("*.py", "*.cjs"):
            for source in (REPOSITORY / folder).rglob(pattern):
                relative = source.relative_to(REPOSITORY / folder)
                assert (installed / "structopt_onnx" / inside / relative).is_file(), relative


def test_what_modules_read_is_in_the_wheel(installed: Path) -> None:
    sources = REPOSITORY / "structopt_onnx"  # not what an installation left in build/
    read = [*sources.rglob("*.jinja"), *sources.rglob("*.css")]
    assert len(read) >= 2
    for source in read:
        assert (installed / source.relative_to(REPOSITORY)).is_file(), source


def test_it_runs_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    model = REPOSITORY / "models" / "digits_cnn.onnx"
    told = run(
        sys.executable,
        "-m",
        "structopt_onnx",
        "optimize",
        str(model),
        "out.onnx",
        "--no-benchmark",
        "--report",
        "report.html",
        cwd=tmp_path,
        path=installed,
    )
    assert "digits_cnn.onnx" in told
    assert "<h2>Before and after</h2>" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out.onnx").stat().st_size <= model.stat().st_size


def test_the_checkout_s_passes_can_not_be_imported_under_another_name() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import passes"
    done = subprocess.run(
        [sys.executable, "-c", code, str(REPOSITORY)], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "import structopt_onnx.passes" in done.stderr


def test_the_core_and_the_tests_do_not_ask_for_torch() -> None:
    try:
        wanted = requires("structopt-onnx") or []
    except PackageNotFoundError:
        pytest.skip("structopt-onnx is not installed here")
    for line in wanted:
        if "torch" in line:
            assert 'extra == "export"' in line
            assert ">=" in line
            assert "<" in line
