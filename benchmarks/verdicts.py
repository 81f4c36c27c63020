"""How often the benchmark's verdict is right, where the right one is known.

A model against a copy of itself should be called the same, and a twin that does 8 % more work (27
layers alike in place of 25) slower. Each run is a whole `structopt_onnx.benchmark`, with a process,
sessions and a seed of its own. Run it on a quiet machine; the load is printed.

    python benchmarks/verdicts.py
    python benchmarks/verdicts.py --net convolutions --runs 20 --twins 10 --seconds 20
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from pairs import Net, where

import structopt_onnx as so

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYERS = 25
MORE_LAYERS = 27
FEATURES = 192
CHANNELS = 32
SIZE = 20


def products(layers: int) -> onnx.ModelProto:
    """Make equal products in a row, each with a Relu."""
    net = Net((4, FEATURES))
    value = net.x
    for _ in range(layers):
        weight = net.stored(net.rng.standard_normal((FEATURES, FEATURES)) / FEATURES**0.5)
        value = net.add("Relu", net.add("MatMul", value, weight))
    return net.proto(value)


def convolutions(layers: int) -> onnx.ModelProto:
    """Make equal 3x3 convolutions in a row, each with a Relu."""
    net = Net((1, CHANNELS, SIZE, SIZE))
    value = net.x
    for _ in range(layers):
        weight = net.stored(net.rng.standard_normal((CHANNELS, CHANNELS, 3, 3)) / CHANNELS)
        value = net.add("Relu", net.add("Conv", value, weight, pads=[1, 1, 1, 1]))
    return net.proto(value)


NETS = {"products": products, "convolutions": convolutions}


def verdicts(a: Path, b: Path, runs: int, seconds: float) -> list[so.Comparison]:
    """Compare two files again and again."""
    return [so.benchmark(a, b, seconds=seconds, seed=seed) for seed in range(runs)]


def row(title: str, right: str, found: Sequence[so.Comparison]) -> str:
    """Write one line of the table."""
    counted = Counter(one.verdict for one in found)
    others = ", ".join(f"{number} {name}" for name, number in counted.items() if name != right)
    ratios = [one.ratio for one in found if one.ratio is not None]
    spreads = [one.control_spread for one in found if one.control_spread is not None]
    told = (
        f"{statistics.median(ratios):.3f} [{min(ratios):.3f}, {max(ratios):.3f}]" if ratios else "-"
    )
    spread = f"{statistics.median(spreads):.4f}, {max(spreads):.4f}" if spreads else "-"
    cells = (title, right, f"{counted[right]} of {len(found)}", others or "-", told, spread)
    return f"| {' | '.join(cells)} |"


def load() -> str:
    """Say how busy the machine has been in the last minute."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20, help="of a model against its copy")
    parser.add_argument("--twins", type=int, default=10, help="of a model against its twin")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each at most")
    parser.add_argument("--net", choices=sorted(NETS), action="append", help="all without it")
    arguments = parser.parse_args()
    print(f"{where()}\nload before: {load()}\n")
    print(
        "| model | right verdict | given | others | B/A, median [least, most] "
        "| A/A spread, median, most |\n|---|---|---|---|---|---|"
    )
    for name in arguments.net or NETS:
        make = NETS[name]
        with tempfile.TemporaryDirectory() as folder:
            a, copy, twin = (Path(folder) / f"{part}.onnx" for part in ("a", "copy", "twin"))
            for path, layers in ((a, LAYERS), (copy, LAYERS), (twin, MORE_LAYERS)):
                onnx.save(make(layers), path)
            same = verdicts(a, copy, arguments.runs, arguments.seconds)
            print(row(f"{name}, its copy", "no difference shown", same), flush=True)
            slower = verdicts(a, twin, arguments.twins, arguments.seconds)
            print(row(f"{name}, 8 % more", "slower", slower), flush=True)
    print(f"\nload after: {load()}")


if __name__ == "__main__":
    main()
