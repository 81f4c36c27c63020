"""Targets: where a model will run and what work costs there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from structopt_onnx.rewriting.cost import Cost

_MULTIPLES = 2


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


TARGETS: dict[str, Target] = _Targets(cpu=CpuTarget())
