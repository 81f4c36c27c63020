"""Targets: where a model will run and what work costs there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

from structopt_onnx.rewriting.operator_tables import COREML, NNAPI, QNN

if TYPE_CHECKING:
    from structopt_onnx.rewriting.cost import Cost

_MULTIPLES = 2
_RECURRENT = {"RNN", "GRU", "LSTM"}


class Target(Protocol):
    """What the rewriting room asks of a target."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def rank_multiple(self) -> int:
        """Ranks of matrix products at other values cost as much as the next multiple."""
        ...

    @property
    def conv_rank_multiple(self) -> int:
        """Channels of convolutions at other values cost as much as the next multiple."""
        ...

    @property
    def is_measured(self) -> bool:
        """Whether a time measured here, on the CPU provider, is a time of the target."""
        ...

    def supports(self, op_type: str, opset: int, dtype: ir.DataType | None) -> bool:
        """Whether the target has an operator.

        Parameters
        ----------
        op_type
            Name of the operator, as ``domain:Name`` where it is not of the default domain.
        opset
            Version of its domain.
        dtype
            Of its data; None where unknown.
        """
        ...

    def seconds(self, cost: Cost) -> float:
        """Predict the time of one run of a region with this static cost."""
        ...


@dataclass(frozen=True)
class CpuTarget:
    """onnxruntime's CPU provider, one thread, by a static roofline.

    A region takes the longer of its arithmetic and of reading its weights, plus a fixed time
    per operator. Micro-benchmarks of single Gemms set the constants: see
    ``benchmarks/cpu_constants.py``.

    Parameters
    ----------
    rank_multiple
        Ranks at other values cost as much as the next multiple (one SIMD register of float32).
    conv_rank_multiple
        The same for the channels of convolutions (the blocks of the NCHWc layout with AVX-512).
    macs_per_second, bytes_per_second, seconds_per_node
        Throughput of products, throughput of reading weights, and overhead per operator.
    """

    name: str = "cpu"
    rank_multiple: int = 8
    conv_rank_multiple: int = 16
    macs_per_second: float = 5.5e10
    bytes_per_second: float = 6e10
    seconds_per_node: float = 4e-7

    @property
    def is_measured(self) -> bool:
        """Whether a time measured here, on the CPU provider, is a time of the target."""
        return True

    def supports(self, op_type: str, opset: int, dtype: ir.DataType | None) -> bool:
        """Whether the provider runs an operator: all but recurrent ones in float64.

        What has no float16 kernel runs between casts that the runtime inserts.
        """
        del opset
        return not (op_type in _RECURRENT and dtype is ir.DataType.DOUBLE)

    def seconds(self, cost: Cost) -> float:
        """Predict the time of one run of a region with this static cost."""
        work = max(cost.macs / self.macs_per_second, cost.bytes / self.bytes_per_second)
        return work + cost.nodes * self.seconds_per_node


class _Targets(dict[str, Target]):
    """Targets by name; ``cpu:8:16`` is ``cpu`` with other multiples of ranks and of channels.

    What was measured on a machine travels this way in a pass's options, and so in pipeline text.
    """

    def __missing__(self, name: str) -> Target:
        base, *multiples = name.split(":")
        target = self.get(base)
        if not isinstance(target, CpuTarget) or len(multiples) != _MULTIPLES:
            raise KeyError(name)
        products, channels = (int(text) for text in multiples)
        return replace(target, rank_multiple=products, conv_rank_multiple=channels)


@dataclass(frozen=True)
class ListedTarget(CpuTarget):
    """A target known by the operators that its onnxruntime provider lists.

    The lists say nothing about opsets, attributes and shapes, so what they hold may still be
    turned down on the device. Nothing better is known of its speed than the CPU's constants.

    Parameters
    ----------
    operators
        What it has: names of the default domain, and ``domain:Name`` of others.
    """

    operators: frozenset[str] = frozenset()

    @property
    def is_measured(self) -> bool:
        """Whether a time measured here, on the CPU provider, is a time of the target."""
        return False

    def supports(self, op_type: str, opset: int, dtype: ir.DataType | None) -> bool:
        """Whether the operator is listed; none of these targets computes in float64."""
        del opset
        return op_type in self.operators and dtype is not ir.DataType.DOUBLE


TARGETS: dict[str, Target] = _Targets(
    cpu=CpuTarget(),
    nnapi=ListedTarget("nnapi", operators=NNAPI),
    coreml=ListedTarget("coreml", operators=COREML),
    qnn=ListedTarget("qnn", operators=QNN),
)
