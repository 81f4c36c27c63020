"""Times of small models, many of them in one measuring process."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from structopt_onnx.rewriting.region import Region, RegionInput
from structopt_onnx.runtime.options import CPU
from structopt_onnx.runtime.process import run_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# A process that starts, imports onnxruntime and opens its sessions on a busy machine.
_PATIENCE = 60.0
_BLOCK = 2**20
# Weights below this have no use for the batching by memory.
_LEAST_BATCH_BYTES = 2**20
_MOST_BATCH_BYTES = 2**29
_MOST_PER_BATCH = 128
_IDLE_OPSET, _IDLE_IR = 13, 7


@dataclass(frozen=True)
class MicroSettings:
    """How much to measure.

    Attributes
    ----------
    seconds
        Time for all of it, the process's own start not counted.
    rounds, min_rounds
        How often each region is run, as the time allows; fewer are not worth having.
    threads
        Threads inside one operator.
    working_set
        Bytes of weights that are used in turns: what the model that the regions are from runs
        through, so that a region finds its weights in the same level of the memory.
    seed
        Of the weights, the inputs and the order.
    """

    seconds: float
    rounds: int = 200
    min_rounds: int = 6
    threads: int = 1
    working_set: int = 2**25
    seed: int = 0


def time_regions(regions: Sequence[Region], settings: MicroSettings) -> list[float | None]:
    """Time one run of each region on the CPU provider, alone in a session of its own.

    In every round each region of a batch runs once, in random order: what disturbs meets all of
    them, and each finds the caches as the other ones left them, as the layers of a model do. Of
    the rounds the fastest counts, less that of a model that does nothing, by the thread's processor
    time where there is one thread and its clock is fine. Weights and inputs are random numbers.

    A convolution alone in its session also pays for bringing its input into onnxruntime's blocked
    layout and its output out of it. Both sides of a rewrite pay the same, so that differences
    of two regions with the same inputs and outputs are those in a row of convolutions.

    Parameters
    ----------
    regions
        The most important first: where the time does not suffice the last are left out.
    settings
        How much to measure.

    Returns
    -------
    list of float or None
        Seconds; None for what was not measured, because the time was up or onnxruntime refused
        it.

    Raises
    ------
    ModelError
        If the measuring process died.
    """
    if not regions or settings.seconds <= 0:
        return [None] * len(regions)
    with TemporaryDirectory(prefix="structopt-onnx-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        _write_weights(root, regions, settings.seed)
        models = [_write(root / f"{n}.onnx", region) for n, region in enumerate(regions)]
        job = {
            "kind": "micro",
            "models": models,
            "idle": _write(root / "idle.onnx", _nothing()),
            "batches": list(_batches(regions, settings.working_set)),
            "settings": asdict(settings) | {"provider": asdict(CPU)},
        }
        result = run_job(job, settings.seconds + _PATIENCE, "micro-benchmark")
    if result is None:
        return [None] * len(regions)
    seconds: list[float | None] = result["seconds"]
    return seconds


def _nothing() -> Region:
    """Return a region whose time is that of calling a session."""
    graph = onnx.GraphProto(name="region")
    graph.node.append(onnx.helper.make_node("Relu", ["x"], ["y"]))
    graph.output.add().name = "y"
    inlet = RegionInput("x", ir.DataType.FLOAT, (1,))
    return Region((inlet,), (), graph, _IDLE_OPSET, _IDLE_IR)


def _batches(regions: Sequence[Region], working_set: int) -> Iterator[list[int]]:
    """Put regions in a row together until they hold about the working set."""
    most = min(max(working_set, _LEAST_BATCH_BYTES), _MOST_BATCH_BYTES)
    batch: list[int] = []
    held = 0
    for number, region in enumerate(regions):
        if batch and (held + region.weight_bytes > most or len(batch) >= _MOST_PER_BATCH):
            yield batch
            batch, held = [], 0
        batch.append(number)
        held += region.weight_bytes
    yield batch


def _write_weights(folder: Path, regions: Sequence[Region], seed: int) -> None:
    """Write one file of random numbers per type, which all weights of that type begin in."""
    longest: dict[str, int] = {}
    for weight in (weight for region in regions for weight in region.weights):
        name = weight.dtype.name
        longest[name] = max(longest.get(name, 0), math.prod(weight.shape))
    block = np.random.default_rng(seed).standard_normal(_BLOCK) * 0.05
    for name, count in longest.items():
        dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.DataType.Value(name))
        piece = block.astype(dtype).tobytes()
        with (folder / name).open("wb") as file:
            for start in range(0, max(count, 1), _BLOCK):
                file.write(piece[: min(_BLOCK, count - start) * dtype.itemsize])


def _write(path: Path, region: Region) -> dict[str, Any]:
    """Write a region as a model; return what the measuring process must know of it."""
    graph = onnx.GraphProto()
    graph.CopyFrom(region.graph)
    for inlet in region.inputs:
        element = int(inlet.dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(inlet.name, element, inlet.shape))
    for weight in region.weights:
        tensor = graph.initializer.add(name=weight.name, data_type=int(weight.dtype))
        tensor.dims.extend(weight.shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        where = {"location": weight.dtype.name, "offset": "0", "length": str(weight.nbytes)}
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
    model = onnx.ModelProto(ir_version=region.ir_version, graph=graph)
    model.opset_import.add(domain="", version=region.opset)
    path.write_bytes(model.SerializeToString())
    inputs = [[i.name, i.dtype.numpy().name, list(i.shape), i.low, i.high] for i in region.inputs]
    return {"path": str(path), "inputs": inputs}
