"""How a session is opened, the same way for every caller; imports onnxruntime, nothing heavier."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from structopt_onnx.errors import ModelError, StructoptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOG_ERRORS_ONLY = 4
_BEST_FIRST = ("NPU", "GPU", "CPU")
_UNKNOWN_OPERATOR = ("is not a registered function/op", "No Op registered for", "Unknown domain")


@dataclass(frozen=True)
class Provider:
    """An execution provider of onnxruntime and how a session is to use it.

    Attributes
    ----------
    name
        onnxruntime's name, such as ``CUDAExecutionProvider``.
    options
        Its options.
    plugin
        The module that brings it as a library to register; empty for one that is built in.
    simulator_options
        More options where a plugin finds no device of its own, so that it can but simulate one.
    device
        Where inputs and outputs are bound, as `OrtValue` calls it: ``cpu`` or ``cuda``.
    entries
        Entries of the session's configuration.
    packages
        A folder whose packages the measuring process imports before all others; empty for none.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    plugin: str = ""
    simulator_options: Mapping[str, str] = field(default_factory=dict)
    device: str = "cpu"
    entries: Mapping[str, str] = field(default_factory=dict)
    packages: str = ""


CPU = Provider("CPUExecutionProvider")


@dataclass(frozen=True)
class SessionSettings:
    """What decides how a session runs.

    Attributes
    ----------
    optimize
        All of onnxruntime's graph optimizations, or none of them.
    threads
        Threads inside one operator; operators always run one after the other.
    spinning
        Whether idle threads spin; off, they cost no CPU time that is not the model's.
    libraries
        Shared libraries with custom operators.
    provider
        The execution provider.
    profile_prefix
        Where to write onnxruntime's profile; `None` for no profile.
    """

    optimize: bool = True
    threads: int = 1
    spinning: bool = True
    libraries: tuple[Path, ...] = ()
    provider: Provider = CPU
    profile_prefix: Path | None = None


def first_line(error: BaseException) -> str:
    """Return the first line of an error's own text, or its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


@contextmanager
def naming(model: str, doing: str) -> Iterator[None]:
    """Turn whatever onnxruntime raises inside into a `ModelError` that names the model.

    Parameters
    ----------
    model
        The model's name, for the message.
    doing
        What failed: "load" or "run".

    Raises
    ------
    ModelError
        With the first line of onnxruntime's text, and the remedy where one is known.
    """
    try:
        yield
    except StructoptError:
        raise
    except Exception as error:
        text = first_line(error)
        remedy = ""
        if any(mark in text for mark in _UNKNOWN_OPERATOR):
            remedy = "; pass the shared library that has this operator with --ort-library"
        raise ModelError(f"{model}: onnxruntime can't {doing} it: {text}{remedy}") from error


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    """Build onnxruntime's options.

    Raises
    ------
    UsageError
        If a custom operator library can't be loaded, or the thread count is not positive.
    """
    if settings.threads < 1:
        raise UsageError(f"threads must be at least 1, not {settings.threads}")
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = (
        levels.ORT_ENABLE_ALL if settings.optimize else levels.ORT_DISABLE_ALL
    )
    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if settings.profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(settings.profile_prefix)
    for library in settings.libraries:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise UsageError(
                f"{library}: not a library of custom operators: {first_line(error)}"
            ) from error
    return options


def open_session(
    source: Path | bytes,
    name: str,
    settings: SessionSettings,
    weights: Mapping[str, ort.OrtValue] | None = None,
) -> ort.InferenceSession:
    """Open a session on the provider asked for, without onnxruntime's silent fallback.

    Parameters
    ----------
    source
        A model file, or a serialized model without external data.
    name
        What to call the model in an error.
    settings
        How it shall run.
    weights
        Data of initializers that are external in the model; to be kept as long as the session.

    Raises
    ------
    ModelError
        If the file is missing, onnxruntime refuses the model, or makes a session without the
        provider.
    UsageError
        If a custom operator library can't be loaded.
    """
    if isinstance(source, Path) and not source.is_file():
        raise ModelError(f"{name}: no such model file")
    options = session_options(settings)
    if weights:
        options.add_external_initializers(list(weights), list(weights.values()))
    provider = settings.provider
    for key, text in provider.entries.items():
        options.add_session_config_entry(key, text)
    with naming(name, "load"):
        # A plugin that is named in `providers` is silently not used.
        if provider.plugin:
            devices = plugin_devices(provider)
            more = provider.simulator_options if device_type(devices[0]) == "CPU" else {}
            options.add_provider_for_devices(devices, {**provider.options, **more})
            named = None
        else:
            named = [(provider.name, dict(provider.options))]
        opened = str(source) if isinstance(source, Path) else source
        session = ort.InferenceSession(opened, options, providers=named, enable_fallback=0)
    # A failing provider must fail: never a run that quietly happened elsewhere.
    session.disable_fallback()
    if provider.name not in session.get_providers():
        raise ModelError(f"{name}: onnxruntime made a session without {provider.name}")
    return session


def plugin_devices(provider: Provider) -> list[ort.OrtEpDevice]:
    """Register a plugin's library, once per process, and return its devices of the best type.

    Raises
    ------
    ModelError
        If there is none.
    """

    def offered() -> list[ort.OrtEpDevice]:
        return [device for device in ort.get_ep_devices() if device.ep_name == provider.name]

    if not offered():
        library = import_module(provider.plugin).get_library_path()
        ort.register_execution_provider_library(provider.name, library)
    devices = offered()
    if not devices:
        raise ModelError(f"{provider.plugin} finds no device on this machine")
    best = min(map(device_type, devices), key=_BEST_FIRST.index)
    return [device for device in devices if device_type(device) == best]


def device_type(device: ort.OrtEpDevice) -> str:
    """Return `NPU`, `GPU` or `CPU`."""
    return str(device.device.type.name)
