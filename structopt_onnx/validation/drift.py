"""Where two versions of a model begin to differ: the first tensor, and the patch that made it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from structopt_onnx.errors import DataError
from structopt_onnx.model.patch import PASS_KEY, PATCH_KEY, REPLACED_KEY
from structopt_onnx.runtime.session import Session
from structopt_onnx.validation.metrics import OutputComparison, OutputMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from structopt_onnx.runtime.session import Feeds

MEMORY = 1 << 30
"""Bytes of intermediate tensors that are held at a time, about."""

_FIRST_CHUNK = 8


@dataclass(frozen=True)
class Origin:
    """The patch behind a node, as its metadata tells.

    Attributes
    ----------
    step
        Name of the pass.
    patch
        The patch's number in the record; None if the metadata holds none.
    replaced
        Some of the values that the patch replaced.
    """

    step: str
    patch: int | None
    replaced: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """The first tensor, in topological order of the candidate, that is off by too much.

    Attributes
    ----------
    tensor
        Its name in the candidate.
    error, tolerance
        Relative L2 error, pooled over the samples (`OutputMetrics.error`), and what was allowed.
    sample
        The worst sample.
    node, op_type
        Name and operator of the node that makes it.
    origin
        The patch that made the node, or else the nearest one upstream of it, searched first as
        far up as the last tensors that agreed; None if no node above was made by a patch.
    agreeing
        Number of tensors before it that were compared and agreed.
    """

    tensor: str
    error: float
    tolerance: float
    sample: int | None
    node: str
    op_type: str
    origin: Origin | None
    agreeing: int

    def __str__(self) -> str:
        """Return one line for the user."""
        blame = "no rewrite above it"
        if self.origin is not None:
            number = "" if self.origin.patch is None else f" {self.origin.patch}"
            blame = f"rewrite{number}, by {self.origin.step}"
        return (
            f"tensor {self.tensor!r} ({self.op_type} {self.node!r}) is the first over "
            f"{self.tolerance:.3g}: relative L2 error {self.error:.3g}; {blame}"
        )


def drift(
    reference: ir.Model,
    candidate: ir.Model,
    samples: Sequence[Feeds],
    *,
    tolerance: float,
    names: Mapping[str, str] | None = None,
    memory: int = MEMORY,
    threads: int = 1,
    libraries: Sequence[Path] = (),
) -> Drift | None:
    """Find the first tensor of the main graph that differs, runtime optimizations disabled.

    Compared are the float tensors that both models have under one name, in topological order of
    the candidate: what a patch leaves standing keeps its name. The models are run over all samples
    once per chunk of tensors, and the search ends with the first chunk that differs.

    Parameters
    ----------
    reference, candidate
        The original and what patches made of it; neither is changed.
    samples
        Inputs of one run each.
    tolerance
        Largest relative L2 error, pooled over the samples, that is not yet a drift.
    names
        Names in the reference of the candidate's tensors that were renamed.
    memory
        Bytes of tensors of one sample to hold at a time; a single tensor may be larger.
    threads, libraries
        Passed to the sessions.

    Returns
    -------
    drift
        The first tensor over the tolerance, or None if there is none.

    Raises
    ------
    DataError
        There are no samples.
    ModelError
        A model can't be run.
    """
    if not len(samples):
        raise DataError("there are no samples, so no tensor can be compared")
    renamed = names or {}
    known = {value.name for node in reference.graph for value in node.outputs}
    common = [
        (value, renamed.get(value.name, value.name))
        for node in candidate.graph
        for value in node.outputs
        if value.name and renamed.get(value.name, value.name) in known and _may_be_float(value)
    ]
    agreed: set[ir.Value] = set()
    start, size = 0, _FIRST_CHUNK
    while start < len(common):
        chunk = common[start : start + size]
        # The sessions of one chunk are gone before the next chunk's are opened.
        results, held = _compared(
            Session(
                reference,
                optimize=False,
                threads=threads,
                libraries=libraries,
                outputs=list(dict.fromkeys(old for _, old in chunk)),
            ),
            Session(
                candidate,
                optimize=False,
                threads=threads,
                libraries=libraries,
                outputs=[value.name or "" for value, _ in chunk],
            ),
            chunk,
            samples,
        )
        for value, metrics in results:
            if metrics.error > tolerance:
                return _report(value, metrics, tolerance, agreed)
            agreed.add(value)
        start += len(chunk)
        size = max(1, size // 2) if held > memory else size * 4 if 4 * held <= memory else size
    return None


def _compared(
    reference: Session,
    candidate: Session,
    chunk: Sequence[tuple[ir.Value, str]],
    samples: Sequence[Feeds],
) -> tuple[list[tuple[ir.Value, OutputMetrics]], int]:
    """Metrics of the float tensors of a chunk, and the bytes that one sample's tensors took."""
    pairs = {value: OutputComparison(value.name or "") for value, _ in chunk}
    floats: set[ir.Value] = set()
    held = 0
    for sample in samples:
        before, after = reference.run(sample), candidate.run(sample)
        arrays = [array for array in (*before.values(), *after.values()) if _is_array(array)]
        held = max(held, sum(array.nbytes for array in arrays))
        for value, old in chunk:
            a, b = before[old], after[value.name or ""]
            if _is_array(a) and _is_array(b):
                pairs[value].update(a, b)
                floats.add(value)
    results = [(value, pairs[value].result()) for value, _ in chunk if value in floats]
    return [pair for pair in results if pair[1].relative_l2 is not None], held


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


def _may_be_float(value: ir.Value) -> bool:
    if value.type is None:
        return True  # onnxruntime will know
    return isinstance(value.type, ir.TensorType) and value.type.dtype.is_floating_point()


def _report(
    value: ir.Value, metrics: OutputMetrics, tolerance: float, agreed: set[ir.Value]
) -> Drift:
    node = value.producer()
    if node is None:  # excluded: only outputs of nodes are compared
        raise AssertionError(value.name)
    return Drift(
        tensor=value.name or "",
        error=metrics.error,
        tolerance=tolerance,
        sample=metrics.worst_sample,
        node=node.name or "",
        op_type=node.op_type,
        # Many small errors can add up behind tensors that agree: then look above those, too.
        origin=_nearest_origin(node, agreed) or _nearest_origin(node, set()),
        agreeing=len(agreed),
    )


def _nearest_origin(node: ir.Node, stops: set[ir.Value]) -> Origin | None:
    """Search breadth first upstream of a node for one that a patch made."""
    queue, seen = deque([node]), {node}
    while queue:
        current = queue.popleft()
        for member in _with_bodies(current):
            if PASS_KEY in member.metadata_props:
                return _origin(member.metadata_props)
            for value in member.inputs:
                if value is None or value in stops:
                    continue
                if PASS_KEY in value.metadata_props:  # a weight that was given new data
                    return _origin(value.metadata_props)
                above = value.producer()
                if above is not None and above not in seen:
                    seen.add(above)
                    queue.append(above)
    return None


def _with_bodies(node: ir.Node) -> Iterator[ir.Node]:
    yield node
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from ir.traversal.RecursiveGraphIterator(attribute.as_graph())


def _origin(metadata: Mapping[str, str]) -> Origin:
    number = metadata.get(PATCH_KEY, "")
    replaced = metadata.get(REPLACED_KEY, "")
    return Origin(
        step=metadata[PASS_KEY],
        patch=int(number) if number.isdecimal() else None,
        replaced=tuple(name for name in replaced.split(",") if name),
    )
