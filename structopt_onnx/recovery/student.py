"""A model of which some weights can be tuned: what depends on them runs in torch.

The rest of the model, frozen, stays with onnxruntime; torch sees only what gradients go through.
No well-kept library serves here (late 2026): onnx2torch has no recurrent operators and none of the
comparisons that exported attention masks are made with, and needs torchvision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from structopt_onnx.model.scope import inner_nodes, subgraphs
from structopt_onnx.recovery.call import Call, NotDifferentiableError
from structopt_onnx.recovery.elementwise import ELEMENTWISE
from structopt_onnx.recovery.layers import LAYERS
from structopt_onnx.recovery.moving import MOVING
from structopt_onnx.recovery.recurrent import RECURRENT
from structopt_onnx.recovery.resizing import resize
from structopt_onnx.runtime.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Array = npt.NDArray[Any]

OPERATORS = {**ELEMENTWISE, **LAYERS, **MOVING, **RECURRENT, "Resize": resize}
"""What can be run under autograd, by the name of the ONNX operator."""

_DOMAINS = ("", "ai.onnx")


class Student:
    """A model with weights under autograd.

    Parameters
    ----------
    model
        The model; never changed.
    tuned
        Names of the initializers to tune, floating-point.
    seen
        Names of values to return beside the outputs; those that do not depend on `tuned` are
        left out.
    threads, libraries
        Of the session that runs what is frozen.

    Attributes
    ----------
    parameters
        The weights, by name. Of those with two axes or more what is 0 stays 0: pruned weights
        keep their pattern.
    final
        Names of the model's floating-point outputs that depend on the weights.
    outputs
        Names of what `run` returns: these, and those of `seen` that depend on the weights.

    Raises
    ------
    NotDifferentiableError
        Naming the node, when gradients would have to go through one that can't be run here.
    """

    def __init__(
        self,
        model: ir.Model,
        tuned: Collection[str],
        *,
        seen: Sequence[str] = (),
        threads: int = 1,
        libraries: Sequence[Path] = (),
    ) -> None:
        graph = model.graph
        opset = model.opset_imports.get("", 1)
        self.parameters = {name: _parameter(graph.initializers[name]) for name in tuned}
        self._masks = {
            name: (parameter != 0).to(parameter.dtype)
            for name, parameter in self.parameters.items()
            if parameter.ndim > 1 and bool((parameter == 0).any())
        }
        self._nodes = _dependent(graph, set(self.parameters))
        self._calls = [call_of(node, opset) for node in self._nodes]
        made = {o.name or "" for node in self._nodes for o in node.outputs}
        final = [o.name or "" for o in graph.outputs if _floating(o)]
        self.final = frozenset(final) & made
        self.outputs = tuple(dict.fromkeys(name for name in (*final, *seen) if name in made))
        self._fed = {i.name or "" for i in graph.inputs}
        read = {i.name or "": i for node in self._nodes for i in node.inputs if i is not None}
        self._constants = {
            name: torch.from_numpy(value.const_value.numpy().copy())
            for name, value in read.items()
            if name in graph.initializers
            and name not in self.parameters
            and value.const_value is not None
        }
        self._frozen = [
            name
            for name in read
            if not (made | self._fed | set(self.parameters) | set(self._constants)) & {name}
        ]
        self._session = None
        if self._frozen:
            self._session = _front(model, self._frozen, threads=threads, libraries=libraries)
        self._last_use = _last_uses(self._nodes, self.outputs)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, torch.Tensor]:
        """Run on inputs, an array each; return `outputs`, with gradients to `parameters`."""
        values: dict[str, torch.Tensor] = {
            name: torch.from_numpy(array.copy())
            for name, array in feeds.items()
            if array.dtype.kind in "fiub"
        }
        if self._session is not None:
            wanted = {info.name for info in self._session.inputs}
            found = self._session.run({k: v for k, v in feeds.items() if k in wanted})
            values |= {name: torch.from_numpy(array) for name, array in found.items()}
        values |= self._constants
        values |= {name: self._masked(name) for name in self.parameters}
        for number, (node, call) in enumerate(zip(self._nodes, self._calls, strict=True)):
            inputs = [None if i is None else values[i.name or ""] for i in node.inputs]
            try:
                results = OPERATORS[node.op_type](call, inputs)
            except NotDifferentiableError as error:
                raise NotDifferentiableError(f"node {node.name!r}: {error}") from None
            except (RuntimeError, TypeError, KeyError) as error:  # torch's, of shapes and types
                first = str(error).partition("\n")[0]
                raise NotDifferentiableError(f"node {node.name!r}: {first}") from error
            several = [results] if isinstance(results, torch.Tensor) else results
            for output, result in zip(node.outputs, several, strict=False):
                values[output.name or ""] = result
            for name in self._last_use.get(number, ()):
                del values[name]
        return {name: values[name] for name in self.outputs}

    def weights(self) -> dict[str, Array]:
        """Return the weights as they are now."""
        return {name: self._masked(name).detach().numpy().copy() for name in self.parameters}

    def _masked(self, name: str) -> torch.Tensor:
        """Return a weight with its zeros in place."""
        mask = self._masks.get(name)
        return self.parameters[name] if mask is None else self.parameters[name] * mask


def call_of(node: ir.Node, opset: int) -> Call:
    """Return a node as its operator sees it.

    Raises
    ------
    NotDifferentiableError
        Where there is no such operator here.
    """
    where = f"node {node.name!r}"
    if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
        raise NotDifferentiableError(f"{where}: {node.op_type} can't be run under autograd")
    if next(subgraphs(node), None) is not None:
        raise NotDifferentiableError(f"{where}: {node.op_type} holds a graph")
    count = max((k for k, o in enumerate(node.outputs, 1) if o.name), default=1)
    attributes = {name: a.value for name, a in node.attributes.items() if not a.is_ref()}
    return Call(node.op_type, attributes, opset, count)


def _parameter(value: ir.Value) -> torch.Tensor:
    assert value.const_value is not None, "an initializer"  # noqa: S101
    return torch.from_numpy(value.const_value.numpy().copy()).requires_grad_()


def _floating(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype.is_floating_point()


def _dependent(graph: ir.Graph, names: set[str]) -> list[ir.Node]:
    """Return the nodes that depend on values, in the order of the graph."""
    reached, found = set(names), []
    for node in graph:
        read = {i.name for n in (node, *inner_nodes(node)) for i in n.inputs if i is not None}
        if read & reached:
            found.append(node)
            reached |= {o.name or "" for o in node.outputs}
    return found


def _last_uses(nodes: Sequence[ir.Node], kept: Collection[str]) -> dict[int, list[str]]:
    """Return which results of nodes are no longer read after which node."""
    last = {}
    for number, node in enumerate(nodes):
        last.update({o.name or "": number for o in node.outputs})
        last.update({i.name: number for i in node.inputs if i is not None and i.name in last})
    free: dict[int, list[str]] = {}
    for name, number in last.items():
        if name and name not in kept:
            free.setdefault(number, []).append(name)
    return free


def _front(
    model: ir.Model, names: Sequence[str], *, threads: int, libraries: Sequence[Path]
) -> Session:
    """Open the part of a model that makes some of its values."""
    graph = model.graph
    inputs = [i for i in graph.inputs if i.name not in graph.initializers]
    part = ir.convenience.extract(graph, inputs, list(names))
    front = ir.Model(part, ir_version=model.ir_version, functions=list(model.functions.values()))
    return Session(front, threads=threads, libraries=libraries, outputs=names)
