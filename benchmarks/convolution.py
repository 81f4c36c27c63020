"""The exact passes on convolutions: products, nodes and time, on layers and on whole models.

    python benchmarks/convolution.py
    python benchmarks/convolution.py --models DIR --plot docs/convolution.png

Each layer is what one identity is about, at a size of a network in use. The whole models are the
light ones of the onnx package, with random weights in the place of those that ConstantOfShape
makes equal; DIR adds the files of its task nsfw, with its metric, by an evaluate.py as in
all_models.py. Everything goes through the whole exact pipeline. Time is that of the paired
benchmark, the optimized model over the unmodified one in the same process, with onnxruntime's own
optimizations in both; one thread, and in whole models also two, by the wall clock. The difference
is the largest of all outputs over their largest value, with those optimizations off.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import onnx
import onnx.backend.test
import onnx.helper
import onnx.numpy_helper
from all_models import Task, tasks
from pairs import Net, difference, interval, short, where

import structopt_onnx as so

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend without a screen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from structopt_onnx.runtime.session import Feeds

LIGHT = Path(onnx.backend.test.__file__).parent / "data" / "light"
NAMES = (
    "densenet121",
    "inception_v1",
    "inception_v2",
    "resnet50",
    "shufflenet",
    "squeezenet",
    "vgg19",
)
NETWORK = "nsfw"  # the one of DIR that is about convolutions alone
SECONDS = {"layer": 12.0, "model": 70.0}
# The first matrices of vgg19 stay equal: random ones take half a gigabyte.
MOST_ELEMENTS = 3_000_000
SAMPLES = 2


class ConvNet(Net):
    """A network of convolutions over a square map."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__((1, channels, size, size))

    def kernel(self, made: int, read: int, taps: int) -> np.ndarray:
        """Return a random kernel that keeps the scale of what it reads."""
        return self.rng.standard_normal((made, read, taps, taps)) / np.sqrt(read * taps**2)

    def conv(
        self,
        source: str,
        kernel: np.ndarray,
        *,
        stride: int = 1,
        pad: int | None = None,
        bias: bool = True,
    ) -> str:
        """Add a convolution that keeps the size where its stride does."""
        taps = kernel.shape[-1]
        inputs = [source, self.stored(kernel)]
        if bias:
            inputs.append(self.stored(self.rng.standard_normal(len(kernel))))
        pads = [taps // 2 if pad is None else pad] * 4
        return self.add("Conv", *inputs, pads=pads, strides=[stride] * 2, kernel_shape=[taps] * 2)

    def per_channel(self, low: float, high: float, channels: int, axes: int = 3) -> str:
        """Store a random number per channel, to be broadcast over a map."""
        return self.stored(self.rng.uniform(low, high, (channels,) + (1,) * (axes - 1)))


def averaged(read: int, made: int, taps: int, size: int) -> onnx.ModelProto:
    """Write a convolution and an AveragePool that halves both sizes."""
    net = ConvNet(read, size)
    y = net.conv(net.x, net.kernel(made, read, taps))
    return net.proto(net.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]))


def averaged_over_the_map(
    read: int, made: int, taps: int, size: int, stride: int = 1
) -> onnx.ModelProto:
    """Write a convolution and the average of its whole map."""
    net = ConvNet(read, size)
    y = net.conv(net.x, net.kernel(made, read, taps), stride=stride)
    return net.proto(net.add("GlobalAveragePool", y))


def end_of_a_stage() -> onnx.ModelProto:
    """Write a ResNet's last block of a stage and the strided convolutions that read it."""
    net = ConvNet(256, 56)
    y = net.add("Relu", net.conv(net.x, net.kernel(64, 256, 1)))
    y = net.add("Relu", net.conv(y, net.kernel(64, 64, 3)))
    y = net.add("Relu", net.add("Add", net.conv(y, net.kernel(256, 64, 1)), net.x))
    outputs = [net.conv(y, net.kernel(made, 256, 1), stride=2) for made in (128, 512)]
    return net.proto(*outputs)


def strided_point() -> onnx.ModelProto:
    """Write a 3x3 convolution of which a strided 1x1 convolution reads a quarter."""
    net = ConvNet(64, 56)
    y = net.add("Relu", net.conv(net.x, net.kernel(64, 64, 3)))
    return net.proto(net.conv(y, net.kernel(128, 64, 1), stride=2))


def strided_dilated() -> onnx.ModelProto:
    """Write a 3x3 convolution of which a dilated one with a stride reads a quarter."""
    net = ConvNet(64, 56)
    y = net.add("Relu", net.conv(net.x, net.kernel(64, 64, 3)))
    steps = {"strides": [2] * 2, "dilations": [2] * 2, "pads": [2] * 4}
    return net.proto(net.add("Conv", y, net.stored(net.kernel(64, 64, 3)), **steps))


def pooled_branch(read: int, made: int, size: int) -> onnx.ModelProto:
    """Write the pooled branch of an Inception block."""
    net = ConvNet(read, size)
    y = net.add("AveragePool", net.add("Relu", net.x), kernel_shape=[3] * 2, pads=[1] * 4)
    return net.proto(net.add("Relu", net.conv(y, net.kernel(made, read, 1))))


def normalized_after_pool() -> onnx.ModelProto:
    """Write a convolution that is pooled before it is normalized."""
    net = ConvNet(64, 56)
    y = net.conv(net.x, net.kernel(64, 64, 3), bias=False)
    y = net.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    ranges = ((0.5, 1.5), (-1, 1), (-1, 1), (0.5, 2))
    numbers = [net.per_channel(low, high, 64, axes=1) for low, high in ranges]
    return net.proto(net.add("Relu", net.add("BatchNormalization", y, *numbers)))


def with_zeros(channels: int, taps: int, size: int, nonzero: slice) -> onnx.ModelProto:
    """Write a kernel that is zero in all but some rows and columns."""
    net = ConvNet(channels, size)
    whole, kept = net.kernel(channels, channels, taps), np.zeros((taps, taps))
    kept[nonzero, nonzero] = 1
    return net.proto(net.conv(net.x, whole * kept))


def in_a_row(
    widths: tuple[int, int, int], taps: tuple[int, int], size: int, *, bias: bool = True
) -> onnx.ModelProto:
    """Write two convolutions with nothing between them."""
    net = ConvNet(widths[0], size)
    y = net.conv(net.x, net.kernel(widths[1], widths[0], taps[0]), bias=bias)
    return net.proto(net.conv(y, net.kernel(widths[2], widths[1], taps[1])))


def products_in_a_row() -> onnx.ModelProto:
    """Write two Gemms with nothing between them."""
    net = Net((128, 256))
    y = net.x
    for read, made in ((256, 1024), (1024, 256)):
        weight = net.rng.standard_normal((read, made)) / np.sqrt(read)
        y = net.add("Gemm", y, net.stored(weight), net.stored(net.rng.standard_normal(made)))
    return net.proto(y)


def scaled() -> onnx.ModelProto:
    """Write a convolution, and a scale and an offset per channel in nodes of their own."""
    net = ConvNet(128, 28)
    y = net.conv(net.x, net.kernel(128, 128, 3))
    y = net.add("Mul", y, net.per_channel(0.5, 1.5, 128))
    return net.proto(net.add("Relu", net.add("Add", y, net.per_channel(-1, 1, 128))))


def normalized_after_concat() -> onnx.ModelProto:
    """Write a bottleneck of a DenseNet: its 1x1 convolution is normalized."""
    net = ConvNet(256, 28)
    y = net.conv(net.x, net.kernel(128, 256, 1), bias=False)
    scale, offset, mean, variance = (
        net.per_channel(low, high, 128, axes=1)
        for low, high in ((0.5, 1.5), (-1, 1), (-1, 1), (0.5, 2))
    )
    y = net.add("Relu", net.add("BatchNormalization", y, scale, offset, mean, variance))
    return net.proto(net.conv(y, net.kernel(32, 128, 3), bias=False))


def channels_last() -> onnx.ModelProto:
    """Write two convolutions of a channels-last model, each turned for itself."""
    net = Net((1, 28, 28, 128))
    maps = ConvNet(128, 28)
    y = net.x
    for _ in range(2):
        y = net.add("Transpose", y, perm=[0, 3, 1, 2])
        y = net.add("Conv", y, net.stored(maps.kernel(128, 128, 3)), pads=[1] * 4)
        y = net.add("Transpose", y, perm=[0, 2, 3, 1])
        y = net.add("Relu", net.add("Add", y, net.stored(net.rng.standard_normal(128))))
    return net.proto(y)


def padded_apart() -> onnx.ModelProto:
    """Write a strided convolution whose padding is a node of its own."""
    net = ConvNet(64, 112)
    y = net.add("Pad", net.x, net.stored(np.array([0, 0, 0, 0, 0, 0, 1, 1])))
    return net.proto(net.conv(y, net.kernel(128, 64, 3), stride=2, pad=0))


LAYERS: tuple[tuple[str, str, Callable[[], onnx.ModelProto]], ...] = (
    ("average first", "1x1 256->128 @56, AveragePool 2", lambda: averaged(256, 128, 1, 56)),
    ("average first", "1x1 512->256 @28, AveragePool 2", lambda: averaged(512, 256, 1, 28)),
    ("average first", "3x3 64->64 @56, AveragePool 2", lambda: averaged(64, 64, 3, 56)),
    ("average first", "3x3 128->128 @28, AveragePool 2", lambda: averaged(128, 128, 3, 28)),
    ("average first", "5x5 64->64 @28, AveragePool 2", lambda: averaged(64, 64, 5, 28)),
    (
        "average of the map first",
        "3x3 512->512 @7, GlobalAveragePool",
        lambda: averaged_over_the_map(512, 512, 3, 7),
    ),
    (
        "average of the map first",
        "3x3 128->256 @14, GlobalAveragePool",
        lambda: averaged_over_the_map(128, 256, 3, 14),
    ),
    (
        "average of the map first",
        "3x3 stride 2 256->512 @14, GlobalAveragePool",
        lambda: averaged_over_the_map(256, 512, 3, 14, stride=2),
    ),
    ("stride up", "3x3 64->64 @56, Relu, 1x1 stride 2 64->128", strided_point),
    ("stride up", "end of a ResNet stage @56, read by 1x1 stride 2", end_of_a_stage),
    ("stride up", "3x3 64->64 @56, Relu, 3x3 stride 2 dilation 2", strided_dilated),
    (
        "fewer channels averaged",
        "AveragePool 3, 1x1 192->32 @28",
        lambda: pooled_branch(192, 32, 28),
    ),
    (
        "fewer channels averaged",
        "AveragePool 3, 1x1 768->192 @17",
        lambda: pooled_branch(768, 192, 17),
    ),
    (
        "zeros trimmed",
        "5x5 64->64 @28, border of zeros",
        lambda: with_zeros(64, 5, 28, slice(1, 4)),
    ),
    (
        "zeros trimmed",
        "3x3 128->128 @28, zero but in the middle",
        lambda: with_zeros(128, 3, 28, slice(1, 2)),
    ),
    (
        "zeros trimmed",
        "5x5 64->64 @28, dilations written out",
        lambda: with_zeros(64, 5, 28, slice(0, 5, 2)),
    ),
    (
        "linear pairs merged",
        "1x1 64->256, 1x1 256->64 @28",
        lambda: in_a_row((64, 256, 64), (1, 1), 28),
    ),
    (
        "linear pairs merged",
        "1x1 64->128, 3x3 128->64 @28",
        lambda: in_a_row((64, 128, 64), (1, 3), 28, bias=False),
    ),
    (
        "linear pairs merged",
        "3x3 64->128, 1x1 128->64 @28",
        lambda: in_a_row((64, 128, 64), (3, 1), 28),
    ),
    ("linear pairs merged", "Gemm 256->1024, 1024->256, 128 rows", products_in_a_row),
    ("folded", "3x3 128->128 @28, Mul, Add, Relu", scaled),
    ("folded", "1x1 256->128 @28, BatchNormalization, Relu, 3x3", normalized_after_concat),
    ("folded", "3x3 64->64 @56, MaxPool 2, BatchNormalization", normalized_after_pool),
    ("folded", "Pad, 3x3 stride 2 64->128 @112", padded_apart),
    ("transposes cancelled", "two channels-last 3x3 128->128 @28", channels_last),
)


def light(name: str) -> onnx.ModelProto:
    """Return a light model with random weights in the place of equal ones."""
    proto = onnx.load(LIGHT / f"light_{name}.onnx")
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    variances = {n.input[4] for n in proto.graph.node if n.op_type == "BatchNormalization"}
    rng = np.random.default_rng(0)
    kept = []
    for node in proto.graph.node:
        dims = shapes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if dims is None or np.prod(dims) > MOST_ELEMENTS:
            kept.append(node)
            continue
        array = rng.standard_normal(dims)
        if len(dims) > 1:
            array *= np.sqrt(2 / np.prod(dims[1:]))
        elif node.output[0] in variances:
            array = 1 + 0.1 * np.abs(array)
        else:
            array = 0.5 + 0.1 * array
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), node.output[0])
        proto.graph.initializer.append(tensor)
        # The IR version of these files lists every initializer among the inputs.
        info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(info)
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    return proto


def random_feeds(proto: onnx.ModelProto) -> list[Feeds]:
    """Make up inputs for everything that is no initializer."""
    rng = np.random.default_rng(1)
    stored = {t.name for t in proto.graph.initializer}
    shapes = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in proto.graph.input
        if info.name not in stored
    }
    return [
        {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(SAMPLES)
    ]


@dataclass(frozen=True)
class Row:
    """One model before and after."""

    group: str
    name: str
    result: so.Result
    difference: float
    comparison: so.Comparison | None
    metric: str = "-"

    @property
    def macs(self) -> float:
        """Share of the products that is left."""
        return self.result.report.after.cost.macs / self.result.report.before.cost.macs

    def cells(self) -> list[str]:
        """Write it for the table."""
        report = self.result.report
        steps = Counter(entry.step for entry in report.applied)
        before, after, found = report.before.cost, report.after.cost, self.comparison
        times = "-"
        if found is not None and found.b is not None:
            times = f"{short(found.a.p50)} -> {short(found.b.p50)}"
        deployed = None if found is None else found.deployed
        shared = deployed is not None and deployed.threads > 1 and deployed.ratio is not None
        two = f"x{deployed.ratio:.3f}{' (noisy)' if deployed.noisy else ''}" if shared else "-"
        return [
            self.group,
            self.name,
            f"{before.macs / 1e6:,.1f} -> {after.macs / 1e6:,.1f}",
            f"{100 * (self.macs - 1):+.1f} %",
            f"{before.nodes} -> {after.nodes}",
            ", ".join(f"{step} {n}" if n > 1 else step for step, n in steps.items())
            or "; ".join(("nothing", *report.rolled_back)),
            times,
            "the same graph" if found is None else interval(found),
            two,
            f"{self.difference:.1e}" if self.difference else "0",
            self.metric,
        ]


COLUMNS = (
    "identity",
    "what",
    "million MACs",
    "MACs",
    "nodes",
    "applied",
    "p50, ms",
    "time, 1 thread",
    "2 threads",
    "difference",
    "metric",
)


class Study:
    """Optimizes models one by one, and measures and prints each as soon as it is done.

    Parameters
    ----------
    work
        Folder for models and data.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.rows: list[Row] = []

    def layer(self, identity: str, name: str, proto: onnx.ModelProto) -> None:
        """Measure one layer on one thread."""
        self._made(identity, name, proto, SECONDS["layer"], threads=1)

    def light(self, name: str) -> None:
        """Measure one of the onnx package's models."""
        self._made("onnx package", name, light(name), SECONDS["model"], threads=2)

    def task(self, task: Task) -> None:
        """Measure a model of a folder, on its calibration data, and its metric."""
        with np.load(task.calibration(self.work)) as data:
            feeds = [{k: data[k][n : n + 1] for k in data.files} for n in range(SAMPLES)]
        target = self.work / "after.onnx"
        row = self._row(
            f"task {task.name}", task.model.stem, task.model, feeds, SECONDS["model"], threads=2
        )
        metric = f"{task.metric(task.model)} -> {task.metric(target)}"
        self._tell(replace(row, metric=metric))

    def _made(
        self, group: str, name: str, proto: onnx.ModelProto, seconds: float, *, threads: int
    ) -> None:
        path = self.work / "before.onnx"
        onnx.save(proto, path)
        self._tell(self._row(group, name, path, random_feeds(proto), seconds, threads=threads))

    def _row(
        self,
        group: str,
        name: str,
        path: Path,
        feeds: Sequence[Feeds],
        seconds: float,
        *,
        threads: int,
    ) -> Row:
        target = self.work / "after.onnx"
        result = so.optimize(path, target, calibration=feeds, benchmark=False)
        comparison = None
        if {entry.step for entry in result.report.applied} - {"normalize"}:
            comparison = so.benchmark(path, target, data=feeds, seconds=seconds, threads=threads)
        return Row(group, name, result, difference(path, target, feeds), comparison)

    def _tell(self, row: Row) -> None:
        self.rows.append(row)
        print(f"| {' | '.join(row.cells())} |", flush=True)


def files(folder: Path) -> Iterator[Task]:
    """Yield the network's task once per file that holds it."""
    for task in tasks(folder):
        if task.name == NETWORK:
            for path in sorted({task.model, *task.model.parent.glob(f"*{NETWORK}*.onnx")}):
                yield Task(task.folder, task.name, path)


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw what is left of products and of time."""
    shown = [r for r in rows if r.comparison is not None and r.comparison.ratio is not None][::-1]
    figure, axis = plt.subplots(figsize=(9, 0.3 * len(shown) + 1.2), layout="constrained")
    for y, row in enumerate(shown):
        found = row.comparison
        reach = [[found.ratio - found.low], [found.high - found.ratio]]
        style = {"fmt": "o", "color": "C0", "markersize": 5, "label": "time" if y == 0 else None}
        axis.errorbar([found.ratio], [y], xerr=reach, **style)
        axis.plot(row.macs, y, "|", color="C1", ms=12, mew=2, label="MACs" if y == 0 else None)
    axis.axvline(1, color="grey", linewidth=0.8)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:.3g}")
    axis.set_yticks(range(len(shown)), [row.name for row in shown], fontsize=8)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
    axis.set_xlabel("optimized over unmodified, one thread (95 % interval over replicates)")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder with the task nsfw")
    parser.add_argument("--no-layers", action="store_true")
    parser.add_argument("--light", action="append", choices=NAMES, help="only these; repeatable")
    parser.add_argument("--plot", type=Path, metavar="OUT.png")
    arguments = parser.parse_args()
    print(f"{where()}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder))
        for identity, name, make in () if arguments.no_layers else LAYERS:
            study.layer(identity, name, make())
        for name in arguments.light or NAMES:
            study.light(name)
        for task in () if arguments.models is None else files(arguments.models):
            study.task(task)
    if arguments.plot is not None:
        plot(study.rows, arguments.plot)


if __name__ == "__main__":
    main()
