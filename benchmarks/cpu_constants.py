"""The constants of the static model of the CPU, measured on this machine.

    python benchmarks/cpu_constants.py

Times single products and convolutions that are bound by arithmetic, products of one row that are
bound by reading their weight, and a chain of operators that have nothing to do. Prints the times
as a Markdown table, and what `CpuTarget` would be made with. One thread; the fastest of many runs
counts, so that it can be run on a machine with others at work.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import fields

import onnx
import onnx_ir as ir

from structopt_onnx.rewriting.region import Region, RegionInput, RegionWeight
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime import machine
from structopt_onnx.runtime.micro_benchmark import MicroSettings, time_regions

OPSET, IR_VERSION = 17, 8
FLOAT = ir.DataType.FLOAT
CHAINS = (8, 72)


def region(nodes: list[onnx.NodeProto], data: tuple[int, ...], *weights: tuple[int, ...]) -> Region:
    """Return nodes that read x and weights w0, w1, ... and make y."""
    graph = onnx.GraphProto(name="region", node=nodes)
    graph.output.add().name = "y"
    held = tuple(RegionWeight(f"w{n}", FLOAT, shape) for n, shape in enumerate(weights))
    return Region((RegionInput("x", FLOAT, data),), held, graph, OPSET, IR_VERSION)


def product(rows: int, size: int) -> Region:
    """One MatMul with a square weight."""
    node = onnx.helper.make_node("MatMul", ["x", "w0"], ["y"])
    return region([node], (rows, size), (size, size))


def convolution(channels: int, side: int) -> Region:
    """One 3x3 convolution that keeps its shape."""
    node = onnx.helper.make_node("Conv", ["x", "w0"], ["y"], pads=[1, 1, 1, 1])
    return region([node], (1, channels, side, side), (channels, channels, 3, 3))


def chain(length: int) -> Region:
    """Operators in a row on a few numbers; no two of them are fused."""
    names = ["x", *(f"v{n}" for n in range(length - 1)), "y"]
    nodes = [
        onnx.helper.make_node(("Sin", "Cos")[n % 2], [names[n]], [names[n + 1]])
        for n in range(length)
    ]
    return region(nodes, (4,))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    # Of each: its region, what it takes and in which unit.
    work = {
        f"MatMul {m} x {k} x {k}": (product(m, k), m * k * k, "MACs")
        for m, k in ((64, 512), (128, 768), (256, 512), (256, 1024))
    }
    work |= {
        f"Conv 3x3, {c} channels, {s} x {s}": (convolution(c, s), c * c * 9 * s * s, "MACs")
        for c, s in ((64, 56), (128, 28), (256, 14))
    }
    work |= {
        f"MatMul 1 x {k} x {k}": (product(1, k), 4 * k * k, "bytes") for k in (512, 768, 1024, 2048)
    }
    work |= {f"{n} operators in a row": (chain(n), n, "nodes") for n in CHAINS}
    settings = MicroSettings(arguments.seconds)
    times = time_regions([found for found, _, _ in work.values()], settings)
    if None in times:
        parser.error("not all could be timed; give it more --seconds")
    seconds = dict(zip(work, (t for t in times if t is not None), strict=True))
    now = machine.current()
    print(f"{now.cpu}, onnxruntime {now.onnxruntime}, one thread\n")
    print("| what | us | per second |\n|---|---|---|")
    rates: dict[str, list[float]] = {}
    for name, (_, amount, unit) in work.items():
        rates.setdefault(unit, []).append(amount / seconds[name])
        print(f"| {name} | {seconds[name] * 1e6:.1f} | {amount / seconds[name]:.3g} {unit} |")
    short, long = (seconds[f"{n} operators in a row"] for n in CHAINS)
    fitted = {
        "macs_per_second": statistics.median(rates["MACs"]),
        "bytes_per_second": statistics.median(rates["bytes"]),
        "seconds_per_node": (long - short) / (CHAINS[1] - CHAINS[0]),
    }
    assumed = {f.name: f.default for f in fields(CpuTarget)}
    print()
    for name, value in fitted.items():
        print(f"{name} = {value:.2g}  (the static model has {assumed[name]:.2g})")


if __name__ == "__main__":
    main()
