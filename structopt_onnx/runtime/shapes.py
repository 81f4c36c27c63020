"""The concrete shape of every value for one feed, read from onnxruntime's profile."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
from onnx import inliner

from structopt_onnx.errors import ModelError
from structopt_onnx.runtime.serialized import serialized
from structopt_onnx.runtime.session import Feeds, Session

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir

Shape: TypeAlias = tuple[int, ...]

_KERNEL = "_kernel_time"


def observed_shapes(
    model: ir.Model, feeds: Feeds, *, libraries: Sequence[Path] = ()
) -> dict[str, Shape]:
    """Run the model once, unoptimized, and report the shapes of its values.

    Values of If, Loop and Scan bodies are included, as of the last time their node ran. Left out
    is what can't be observed: values of branches not taken, formal inputs of bodies, values
    inside functions, sequences, and names used in several bodies for values of different shapes.

    Parameters
    ----------
    model
        The model; it is not changed.
    feeds
        One run's inputs.
    libraries
        Shared libraries with custom operators.

    Returns
    -------
    dict
        Shape per value name: inputs, initializers, constants and everything computed.

    Raises
    ------
    DataError
        If the feeds do not fit the model.
    ModelError
        If onnxruntime can't load or run the model.
    """
    names = _Names()
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        with serialized(model, names.prepare) as (source, weights):
            session = Session(
                source,
                weights=weights,
                optimize=False,
                libraries=libraries,
                name=f"model {model.graph.name!r}",
                profile_prefix=Path(folder) / "shapes",
            )
        session.run(feeds)
        events = json.loads(session.end_profiling().read_text(encoding="utf-8"))
    shapes = _Shapes()
    for name, array in feeds.items():
        shapes.add(name, tuple(array.shape))
    for name, shape in names.constants:
        shapes.add(name, shape)
    for node, observed in _last_outputs(events).items():
        outputs = names.outputs.get(node, [])
        # Sequences and absent optional outputs are not in the list: then nothing can be told.
        if len(outputs) == len(observed):
            for name, shape in zip(outputs, observed, strict=True):
                shapes.add(name, shape)
    unseen = [name for name in names.main_graph if name not in shapes.known]
    for name, shape in _exposed(model, feeds, unseen, libraries):
        shapes.add(name, shape)
    return {name: shape for name, shape in shapes.known.items() if name not in shapes.ambiguous}


class _Shapes:
    """Shapes by name, remembering the names that stand for several values."""

    def __init__(self) -> None:
        self.known: dict[str, Shape] = {}
        self.ambiguous: set[str] = set()

    def add(self, name: str, shape: Shape) -> None:
        if self.known.setdefault(name, shape) != shape:
            self.ambiguous.add(name)


class _Names:
    """What the protocol buffer says, collected while its nodes get unique names."""

    def __init__(self) -> None:
        self.outputs: dict[str, list[str]] = {}
        self.constants: list[tuple[str, Shape]] = []
        self.main_graph: list[str] = []

    def prepare(self, proto: onnx.ModelProto) -> None:
        """Inline the functions, whose nodes no profile event could be told apart from."""
        if proto.functions:
            proto.CopyFrom(inliner.inline_local_functions(proto))
        self._visit(proto.graph)
        self.main_graph = [name for node in proto.graph.node for name in node.output if name]

    def _visit(self, graph: onnx.GraphProto) -> None:
        self.constants.extend((tensor.name, tuple(tensor.dims)) for tensor in graph.initializer)
        for node in graph.node:
            node.name = f"node{len(self.outputs)}"
            self.outputs[node.name] = [name for name in node.output if name]
            if node.op_type == "Constant" and node.domain in {"", "ai.onnx"}:
                # onnxruntime turns it into an initializer: it never runs.
                self.constants.append((node.output[0], _constant_shape(node.attribute[0])))
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    self._visit(body)


def _constant_shape(attribute: onnx.AttributeProto) -> Shape:
    if attribute.name == "value":
        return tuple(attribute.t.dims)
    if attribute.name == "sparse_value":
        return tuple(attribute.sparse_tensor.dims)
    value = onnx.helper.get_attribute_value(attribute)
    return (len(value),) if isinstance(value, list) else ()


def _last_outputs(events: list[dict[str, Any]]) -> dict[str, list[Shape]]:
    """Output shapes per node name, of the last time it ran."""
    last: dict[str, list[Shape]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_KERNEL):
            continue
        entries = event.get("args", {}).get("output_type_shape")
        if entries is not None:
            last[event["name"].removesuffix(_KERNEL)] = [
                tuple(sizes) for entry in entries for sizes in entry.values()
            ]
    return last


def _exposed(
    model: ir.Model, feeds: Feeds, names: list[str], libraries: Sequence[Path]
) -> Iterator[tuple[str, Shape]]:
    """Shapes of values that no event named, made outputs of a second run.

    Such are the results of standard operators that onnxruntime has no kernel for and expands.
    """
    if not names:
        return
    try:
        session = Session(model, optimize=False, libraries=libraries, outputs=names)
        values = session.run(feeds)
    except ModelError:
        return  # a value that can't be an output (an optional, say) stays unobserved
    for name, value in values.items():
        if hasattr(value, "shape"):
            yield name, tuple(value.shape)
