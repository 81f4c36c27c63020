"""Train a torch classifier reproducibly and export it to a small self-contained ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

OPSET = 18


def seed(value: int) -> None:
    """Make initial weights and shuffling repeat; one thread keeps the order of every sum."""
    torch.manual_seed(value)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=True)


def train(
    module: torch.nn.Module,
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    epochs: int,
    loss: Callable[[Any, torch.Tensor], torch.Tensor] = torch.nn.functional.cross_entropy,
    rate: float = 1e-3,
) -> None:
    """Fit `module` with AdamW, a one-cycle learning rate and small weight decay.

    Parameters
    ----------
    module
        Called with a batch of `inputs`, returns what `loss` takes first.
    inputs, labels
        float32 [n, ...] and int64 [n].
    epochs
        Passes over the data, in shuffled batches of 64.
    loss
        Mean loss of a batch, from the module's outputs and the labels.
    rate
        The highest learning rate.
    """
    data = torch.utils.data.TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels))
    batches = torch.utils.data.DataLoader(data, batch_size=64, shuffle=True)
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=epochs * len(batches)
    )
    module.train()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            torch.autograd.backward(loss(module(x), y))
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    module.eval()


def export(
    module: torch.nn.Module, example: np.ndarray, path: Path, outputs: Sequence[str]
) -> None:
    """Write `module` to `path` with input `x`, a free batch axis and its weights inside.

    Parameters
    ----------
    module
        The trained module, in evaluation mode.
    example
        float32 [n, ...], inputs to trace with; n > 1 keeps the batch axis free.
    path
        The .onnx file.
    outputs
        Names of the graph's outputs.
    """
    program = torch.onnx.export(
        module,
        (torch.from_numpy(example),),
        dynamo=True,
        input_names=["x"],
        output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        verbose=False,
    )
    if program is None:
        raise RuntimeError(f"{path}: the exporter returned nothing")
    model = program.model_proto
    strip(model)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def strip(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes (source paths, stack traces, module names) from `model`."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]
    for value in graph.value_info:
        value.doc_string = ""
        del value.metadata_props[:]
