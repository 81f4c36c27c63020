"""Beside other tools: what they make of a model, of our result, and we of theirs.

    python benchmarks/neighbours.py
    python benchmarks/neighbours.py --model FILE.onnx --heads 12 --hidden 384

Exact passes alone run on each model. onnxslim, onnxsim and onnxruntime's optimizer of transformers
then take it as it is and as we leave it; ``they, then we`` is the other order. Error is the
relative L2 error of the worst output of ``we, then they`` against the model as it is, on made-up
inputs, with onnxruntime's own optimizations off. A second table counts the fused operators that
onnxruntime's optimizer finds, and names what applied. Without --model: the shipped models, and a
small encoder with the formulas of BERT (Devlin et al., 2018), seeded, which needs torch.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from pairs import quiet, where

import structopt_onnx as so

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = Path(__file__).resolve().parent.parent / "models"
SHIPPED = ("digits_cnn", "digits_gru", "simple_rnn_unrolled")
COLUMNS = ("model", "tool", "as it is", "they", "we", "we, then they", "they, then we", "error")
HEADS, HIDDEN = 4, 64


@dataclass(frozen=True)
class Subject:
    """A model to hand around.

    Attributes
    ----------
    path
        Its file.
    heads, hidden
        Attention heads and width, for onnxruntime's optimizer; None where it is no transformer.
    """

    path: Path
    heads: int | None = None
    hidden: int | None = None


def _simplified(subject: Subject, source: Path, target: Path) -> None:
    import onnxsim  # noqa: PLC0415 - installed or not

    onnx.save(onnxsim.simplify(onnx.load(source))[0], target)
    del subject


def _slimmed(subject: Subject, source: Path, target: Path) -> None:
    import onnxslim  # noqa: PLC0415 - installed or not

    onnx.save(onnxslim.slim(onnx.load(source)), target)
    del subject


def _fused(subject: Subject, source: Path, target: Path) -> None:
    from onnxruntime.transformers import optimizer  # noqa: PLC0415 - slow, and for some only

    made = optimizer.optimize_model(
        str(source),
        "bert",
        num_heads=subject.heads or 0,
        hidden_size=subject.hidden or 0,
        opt_level=0,
        only_onnxruntime=False,
    )
    made.save_model_to_file(str(target))


TOOLS: dict[str, tuple[str, Callable[[Subject, Path, Path], None]]] = {  # what pip installs
    "onnxslim": ("onnxslim", _slimmed),
    "onnxsim": ("onnxsim", _simplified),
    "onnxruntime.transformers": ("onnxruntime", _fused),
}


def encoder(path: Path) -> Subject:
    """Write a small BERT: embeddings, two layers of attention and a feed-forward part."""
    import torch  # noqa: PLC0415 - an extra
    from torch import nn  # noqa: PLC0415

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key, self.value, self.out = (
                nn.Linear(HIDDEN, HIDDEN) for _ in range(4)
            )
            self.norms = nn.ModuleList([nn.LayerNorm(HIDDEN) for _ in range(2)])
            self.wide, self.narrow = nn.Linear(HIDDEN, 256), nn.Linear(256, HIDDEN)

        def split(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(x.size(0), x.size(1), HEADS, HIDDEN // HEADS).permute(0, 2, 1, 3)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            query, key, value = (self.split(f(x)) for f in (self.query, self.key, self.value))
            scores = query @ key.transpose(-1, -2) / (HIDDEN // HEADS) ** 0.5 + mask
            mixed = (scores.softmax(-1) @ value).permute(0, 2, 1, 3).contiguous()
            mixed = mixed.view(mixed.size(0), mixed.size(1), HIDDEN)
            x = self.norms[0](self.out(mixed) + x)
            return self.norms[1](self.narrow(nn.functional.gelu(self.wide(x))) + x)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(100, HIDDEN), nn.Embedding(32, HIDDEN)
            self.kinds, self.norm = nn.Embedding(2, HIDDEN), nn.LayerNorm(HIDDEN)
            self.layers = nn.ModuleList([Layer() for _ in range(2)])
            self.register_buffer("position_ids", torch.arange(32)[None])

        def forward(
            self, ids: torch.Tensor, mask: torch.Tensor, kinds: torch.Tensor
        ) -> torch.Tensor:
            places = self.places(self.position_ids[:, : ids.size(1)])
            x = self.norm(self.words(ids) + self.kinds(kinds) + places)
            added = (1.0 - mask[:, None, None, :].to(torch.float32)) * -10000.0
            for layer in self.layers:
                x = layer(x, added)
            return x

    torch.manual_seed(0)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    ids = torch.ones(2, 8, dtype=torch.int64)
    with quiet():
        torch.onnx.export(
            Encoder().eval(), (ids, ids, torch.zeros_like(ids)), path, input_names=names,
            output_names=["last_hidden_state"], opset_version=14, dynamo=False,
            dynamic_axes={name: {0: "batch", 1: "sequence"} for name in names},
        )  # fmt: skip
    return Subject(path, HEADS, HIDDEN)


def _size(path: Path) -> str:
    return f"{len(onnx.load(path).graph.node)} nodes, {path.stat().st_size:,} bytes"


def _theirs(path: Path) -> Counter[str]:
    nodes = onnx.load(path).graph.node
    return Counter(node.op_type for node in nodes if node.domain == "com.microsoft")


def rows(subject: Subject, folder: Path) -> tuple[list[str], str | None]:
    """Return a model's rows of the first table and its row of the second, if it has one."""
    name, ours = subject.path.stem, folder / "ours.onnx"
    applied = so.optimize(subject.path, ours, benchmark=False).report.applied
    lines, counted = [], None
    for tool, (package, run) in TOOLS.items():
        if run is _fused and subject.heads is None:
            continue
        if find_spec(package) is None:
            blank = " | -" * (len(COLUMNS) - 3)
            lines.append(f"| {name} | {tool}{blank} | not run: pip install {package} |")
            continue
        alone, after, before = (folder / f"{n}.onnx" for n in ("alone", "after", "before"))
        with quiet():
            run(subject, subject.path, alone)
            run(subject, ours, after)
        so.optimize(alone, before, benchmark=False)
        error = so.validate(subject.path, after, max_error=1, drift=False).validation.exact.error
        cells = (
            f"{tool} {version(package)}",
            *map(_size, (subject.path, alone, ours, after, before)),
        )
        lines.append(f"| {name} | {' | '.join(cells)} | {error:.1g} |")
        if run is _fused:
            kinds = sorted({*_theirs(alone), *_theirs(after)})
            found = ", ".join(f"{k} {_theirs(alone)[k]} -> {_theirs(after)[k]}" for k in kinds)
            steps = ", ".join(f"{s} {n}" for s, n in Counter(a.step for a in applied).items())
            counted = f"| {name} | {found or 'none'} | {steps or 'none'} |"
    return lines, counted


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, metavar="FILE", help="a model of one's own")
    parser.add_argument("--heads", type=int, help="its attention heads, if it is a transformer")
    parser.add_argument("--hidden", type=int, help="its width")
    arguments = parser.parse_args()
    print(f"{where()}\n\n| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    fused = []
    with tempfile.TemporaryDirectory() as made:
        if arguments.model is not None:
            subjects = [Subject(arguments.model, arguments.heads, arguments.hidden)]
        else:
            subjects = [Subject(MODELS / f"{name}.onnx") for name in SHIPPED]
            if find_spec("torch") is not None:
                subjects.append(encoder(Path(made) / "small_bert.onnx"))
        for subject in subjects:
            with tempfile.TemporaryDirectory() as folder:
                lines, counted = rows(subject, Path(folder))
            print("\n".join(lines), flush=True)
            fused += [counted] if counted else []
    if fused:
        print("\n| model | fused operators: as it is -> as we leave it | applied |\n|---|---|---|")
        print("\n".join(fused))


if __name__ == "__main__":
    main()
