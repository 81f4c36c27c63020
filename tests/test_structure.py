"""What the package promises about itself, read off its syntax trees."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import structopt_onnx
import structopt_onnx.passes

_ROOT = Path(structopt_onnx.__file__).parent
_PASSES = Path(structopt_onnx.passes.__file__).parent
_ORDER = [
    "errors",
    "linalg",
    "model",
    "rewriting",
    "runtime",
    "calibration",
    "validation",
    "recovery",
    "report",
    "api",
    "cli",
]
_PASSES_MAY_IMPORT = {"errors", "linalg", "model", "rewriting", "passes"}
_ENTRANCES = {"__init__", "__main__"}


def _room(path: Path) -> str:
    if path.is_relative_to(_PASSES):
        return "passes"
    return path.relative_to(_ROOT).parts[0].removesuffix(".py")


_MODULES = [
    *(path for path in sorted(_ROOT.rglob("*.py")) if _room(path) not in {*_ENTRANCES, "passes"}),
    *sorted(_PASSES.rglob("*.py")),
]


def _imported_rooms(tree: ast.Module) -> set[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "structopt_onnx" and len(p) > 1}


def _calls(tree: ast.Module) -> set[str]:
    return {
        node.func.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


_EACH = pytest.mark.parametrize("path", _MODULES, ids=lambda p: f"{p.parent.name}/{p.stem}")


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in _MODULES}


@_EACH
def test_imports_run_one_way(path: Path, trees):
    imported = _imported_rooms(trees[path]) - {"__version__"}
    room = _room(path)
    if room == "passes":
        assert imported <= _PASSES_MAY_IMPORT
        return
    below = set(_ORDER[: _ORDER.index(room) + 1])
    if room in {"api", "cli"}:
        below.add("passes")
    assert imported <= below


@_EACH
def test_modules_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_rooms_do_not_import_each_other_in_a_circle():
    assert {_room(path) for path in _MODULES} == {*_ORDER, "passes"}


def test_only_the_manager_applies_patches(trees):
    users = defaultdict(set)
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "apply"
                and {keyword.arg for keyword in node.keywords} >= {"pass_name", "number"}
            ):
                users[path.relative_to(_ROOT.parent).as_posix()].add(node.lineno)
    assert set(users) == {"structopt_onnx/rewriting/manager.py"}


# The terminal is the command line's; what a child process says to its parent is a protocol.
_SPEAKERS = {"cli", "__main__"}
_CHILDREN = {"runtime/providers/execution.py"}


def test_the_library_writes_to_no_standard_stream(trees):
    speaking = set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            prints = isinstance(node, ast.Name) and node.id == "print"
            stream = isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"}
            if prints or (stream and isinstance(node.value, ast.Name) and node.value.id == "sys"):
                speaking.add(path)
    others = {path for path in speaking if _room(path) not in _SPEAKERS}
    assert {path.relative_to(_ROOT).as_posix() for path in others} == _CHILDREN
    assert {_room(path) for path in speaking} >= {"cli"}


# Calls that edit a graph of onnx_ir.
_EDITS = {
    "insert_before",
    "insert_after",
    "register_initializer",
    "replace_all_uses_with",
    "replace_input_with",
    "resize_inputs",
    "resize_outputs",
}
# Loading and encoding make the graph from a file and back.
_EDITORS = {"model/patch.py", "model/loading.py", "model/encoding.py"}


def test_only_patches_edit_graphs(trees):
    editors = {
        path.relative_to(_ROOT).as_posix()
        for path, tree in trees.items()
        if path.is_relative_to(_ROOT) and _calls(tree) & _EDITS
    }
    assert editors <= _EDITORS
    assert "model/patch.py" in editors
    assert not any(_calls(tree) & _EDITS for path, tree in trees.items() if _room(path) == "passes")
