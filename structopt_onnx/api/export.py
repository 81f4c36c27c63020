"""`export`: from a torch module to an optimized model in one call."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from structopt_onnx.api.optimize import optimize
from structopt_onnx.api.progress import logged
from structopt_onnx.errors import ModelError, UsageError
from structopt_onnx.model.loading import SOURCE, load

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from structopt_onnx.api.result import Result


def export(
    module: Any,  # noqa: ANN401 - torch is no dependency of this file
    args: Sequence[Any],
    output: str | Path | None = None,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any | None = None,  # noqa: ANN401 - as torch takes it
    dynamic_axes: Mapping[str, Any] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    opset_version: int | None = None,
    dynamo: bool = True,
    calibration: Any | None = None,  # noqa: ANN401 - a loader, a path, arrays or feeds
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,  # noqa: ANN401 - the fields of OptimizeOptions
) -> Result:
    """Export a torch module and optimize what the exporter made of it.

    Parameters
    ----------
    module
        A `torch.nn.Module` or an exported program; exported in evaluation mode, and every
        layer left in the mode that it was in.
    args, kwargs
        Example inputs, as `torch.onnx.export` takes them.
    output
        Where to write; None writes nothing.
    dynamic_shapes, dynamic_axes
        What may vary: the first for torch's current exporter, the second for the older one.
    input_names, output_names, opset_version
        As `torch.onnx.export` takes them.
    dynamo
        Whether torch's current exporter is used; its program is optimized as it is, without a
        trip through disk. The older one is deprecated by torch.
    calibration
        Sample inputs: a `DataLoader` or another iterable of inputs (a tensor, a tuple in the order
        of the inputs, or a mapping by name; what follows the last input, such as labels, is left
        out), or what `optimize` takes.
    progress
        Called with a line about what happens now.
    **options
        Fields of `OptimizeOptions`, such as ``max_error=0.05``, and the `recipe` of `optimize`.

    Returns
    -------
    Result
        The model and the report.

    Raises
    ------
    UsageError
        Without torch, or as of `optimize`.
    ModelError
        When torch can't export the module.
    """
    if find_spec("torch") is None:
        raise UsageError("export needs torch: pip install 'structopt-onnx[export]'")
    settings: dict[str, Any] = {
        "input_names": None if input_names is None else list(input_names),
        "output_names": None if output_names is None else list(output_names),
        "opset_version": opset_version,
    }
    settings |= {"dynamic_shapes": dynamic_shapes} if dynamo else {"dynamic_axes": dynamic_axes}
    if dynamo and dynamic_axes is not None:
        raise UsageError("dynamic_axes is for dynamo=False; give dynamic_shapes")
    logged(progress)("export")
    source = _exported(module, tuple(args), dict(kwargs or {}), settings, dynamo=dynamo)
    return optimize(source, output, calibration=calibration, progress=progress, **options)


def _exported(
    module: Any,  # noqa: ANN401 - likewise
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    settings: dict[str, Any],
    *,
    dynamo: bool,
) -> ir.Model:
    import torch  # noqa: PLC0415 - takes seconds, and is no dependency

    layers = list(module.modules()) if isinstance(module, torch.nn.Module) else []
    modes = [layer.training for layer in layers]
    held = io.BytesIO()
    try:
        for layer in layers:
            layer.training = False
        made = torch.onnx.export(
            module,
            args,
            None if dynamo else held,
            kwargs=kwargs,
            dynamo=dynamo,
            verbose=False,
            **settings,
        )
    except Exception as error:  # torch's exporters raise anything
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{type(module).__name__}: torch can't export it: {first}") from error
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode
    source: ir.Model = made.model if dynamo else load(held.getvalue())
    source.meta[SOURCE] = type(module).__name__  # what messages and the report call it
    return source
