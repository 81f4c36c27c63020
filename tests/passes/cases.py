"""Case files: a model before and after one pass, on one page.

A file is a header of ``key: value`` lines and sections that start with a line ``name:``. The
header names the pass as pipeline text and may hold

``random: TYPE NAME [rank=R] [density=D] [scope=VALUE]``
    an initializer with seeded normal numbers, of that rank, all but a share D of them zero; in the
    branch that makes VALUE;
``option: LABEL``
    which option of every choice to apply (lossy passes);
``outputs: equal | predicted``
    for lossy passes, how near the outputs must stay;
``calibration: seeded``
    gather statistics on the samples first;
``objective: NAME``
    hold patches to the must-pay gate under this objective, for bytes with weights as encoded;
``shapes: observed``
    count costs on the shapes of a run, as where dimensions are symbolic;
``repeat: N``
    apply the plan N times;
``features: AXIS``, ``energy: second``
    the axis of the output features, -1 by default; errors are relative to the second moment
    instead of the variance;
``annotate: NAME``
    a quantization annotation on a value;
``run: no``
    onnxruntime can't run the model.

Then ``before:``, and what to expect: ``after:`` with ``constants:``, ``unchanged:``, and
``refused:`` with ``code node`` lines, together with either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import onnx.parser
import onnx.printer
import onnx_ir as ir

from structopt_onnx.calibration.samples import load_samples
from structopt_onnx.calibration.statistics import gather
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.model.loading import load
from structopt_onnx.model.patch import PASS_KEY
from structopt_onnx.model.saving import to_proto
from structopt_onnx.model.scope import scopes
from structopt_onnx.model.validity import interface
from structopt_onnx.passes import catalogue
from structopt_onnx.rewriting.gates import MustPay
from structopt_onnx.rewriting.manager import PassManager, Planned
from structopt_onnx.rewriting.pipeline import parse_pipeline
from structopt_onnx.rewriting.target import CpuTarget
from structopt_onnx.runtime.session import Session
from structopt_onnx.runtime.shapes import observed_shapes
from structopt_onnx.validation.compare import compare
from structopt_onnx.validation.tolerances import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from structopt_onnx.rewriting.passes import Step

_SECTIONS = ("before", "after", "constants", "unchanged", "refused")
_HEADER = re.compile(r"([a-z]+):\s*(.*)")
_RANDOM = re.compile(
    r"(\w+)\[([\d,]*)\] (\w+)(?: rank=(\d+))?(?: density=([\d.]+))?(?: scope=(\w+))?"
)
_SHOWN = 16
_SAMPLES = 40


@dataclass(frozen=True)
class Case:
    path: Path
    header: tuple[tuple[str, str], ...]
    sections: dict[str, str]
    step: Step = field(init=False)

    def __post_init__(self) -> None:
        (step,) = parse_pipeline(self.get("pass"), catalogue())
        object.__setattr__(self, "step", step)

    def get(self, key: str, default: str = "") -> str:
        return next((value for name, value in self.header if name == key), default)

    @property
    def is_lossy(self) -> bool:
        return self.step.exactness is Exactness.LOSSY

    def model(self) -> onnx.ModelProto:
        proto = onnx.parser.parse_model(self.sections["before"])
        for name, value in self.header:
            if name == "random":
                _add_random(proto, value)
            elif name == "annotate":
                note = onnx.StringStringEntryProto(key="SCALE_TENSOR", value="scale")
                proto.graph.quantization_annotation.add(
                    tensor_name=value, quant_parameter_tensor_names=[note]
                )
        onnx.checker.check_model(proto, full_check=True)
        return proto

    def write(self, sections: dict[str, str]) -> None:
        head = "".join(
            f"#{value}\n" if name == "#" else f"{name}: {value}\n" for name, value in self.header
        )
        body = "".join(
            f"{name}:\n{sections[name].strip(chr(10))}\n".replace(":\n\n", ":\n")
            for name in _SECTIONS
            if name in sections
        )
        self.path.write_text(head + body, encoding="utf-8")


def read_case(path: Path) -> Case:
    header: list[tuple[str, str]] = []
    sections: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        name = line.removesuffix(":")
        if line.endswith(":") and name in _SECTIONS:
            lines = sections.setdefault(name, [])
        elif lines is not None:
            lines.append(line)
        elif line.startswith("#") or (found := _HEADER.fullmatch(line)):
            header.append(("#", line[1:]) if line.startswith("#") else found.groups())
        else:
            raise ValueError(f"{path}: not a header line: {line}")
    return Case(path, tuple(header), {k: "\n".join(v).strip("\n") for k, v in sections.items()})


def _add_random(proto: onnx.ModelProto, text: str) -> None:
    found = _RANDOM.fullmatch(text)
    if found is None:
        raise ValueError(f"not a random constant: {text}")
    kind, sizes, name, rank, density, scope = found.groups()
    dims = tuple(int(size) for size in sizes.split(",") if size)
    rng = np.random.default_rng(list(name.encode()))
    array = rng.standard_normal(dims)
    if rank is not None:
        rows, columns = dims
        array = rng.standard_normal((rows, int(rank))) @ rng.standard_normal((int(rank), columns))
        array /= np.sqrt(int(rank))
    if density is not None:
        array = np.where(rng.random(dims) < float(density), array, 0)
    dtype = onnx.TensorProto.DataType.Value(kind.upper())
    data = array.astype(onnx.helper.tensor_dtype_to_np_dtype(dtype))
    graph = proto.graph if scope is None else _graph_that_makes(proto.graph, scope)
    graph.initializer.append(onnx.numpy_helper.from_array(data, name))


def _graph_that_makes(graph: onnx.GraphProto, value: str) -> onnx.GraphProto:
    return next(g for _, g in _graphs(graph, "") if any(value in n.output for n in g.node))


def _graphs(graph: onnx.GraphProto, path: str) -> Iterator[tuple[str, onnx.GraphProto]]:
    yield path, graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g, f"{path}{node.output[0]}.{attribute.name}/")


def _constants(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        f"{path}{tensor.name}": onnx.numpy_helper.to_array(tensor)
        for path, graph in _graphs(proto.graph, "")
        for tensor in graph.initializer
    } | {
        f"{path}{tensor.name}": onnx.numpy_helper.to_array(tensor)
        for path, graph in _graphs(proto.graph, "")
        for sparse in graph.sparse_initializer
        for tensor in (sparse.values,)
    }


def structure(proto: onnx.ModelProto) -> str:
    """Return the model as ONNX text, without its initializers."""
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    for _, graph in _graphs(shown.graph, ""):
        del graph.initializer[:]
        del graph.value_info[:]
    text = onnx.printer.to_text(shown)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip())


def constants(proto: onnx.ModelProto, before: onnx.ModelProto, *, lossy: bool) -> str:
    """List the initializers: those of the original by name, others by value or by norm."""
    standing = _constants(before)
    lines = []
    for name, array in _constants(proto).items():
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        head = f"{name} {onnx.TensorProto.DataType.Name(kind).lower()}{list(array.shape)}"
        same = standing.get(name)
        if same is not None and same.dtype == array.dtype and same.tobytes() == array.tobytes():
            lines.append(f"{head} as before")
        elif array.size <= _SHOWN and not (lossy and array.dtype.kind == "f" and array.any()):
            lines.append(f"{head} = {' '.join(str(x) for x in array.reshape(-1).tolist())}")
        else:
            # What an eigenvector's sign does not change, to what another BLAS leaves.
            norm = float(np.linalg.norm(array.astype(np.float64)))
            lines.append(f"{head} norm {norm:.3g}")
    return "\n".join(sorted(lines))


def feeds(session: Session, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    # Defaults are overridden every other time; shapes can't be by any numbers.
    overridden = [i for i in session.overridable if seed % 2 and i.dtype != np.int64]
    for info in (*session.inputs, *overridden):
        dims = [d if isinstance(d, int) else 5 for d in info.shape]
        dtype: Any = info.dtype
        if dtype.kind == "f":
            made[info.name] = np.asarray(rng.standard_normal(dims) + 0.5).astype(dtype)
        else:
            made[info.name] = np.asarray(rng.integers(0, 2, dims)).astype(dtype)
    return made


@dataclass
class Run:
    """A case carried out."""

    case: Case
    before: onnx.ModelProto
    after: onnx.ModelProto
    manager: PassManager
    samples: list[dict[str, np.ndarray]]
    planned: list[Planned]
    again: int
    """How many patches a second run applied."""

    @property
    def codes(self) -> set[str]:
        return {f"{r.refusal.code} {r.refusal.node}" for r in self.manager.record.refused}


def run_case(case: Case) -> Run:
    before = case.model()
    samples: list[dict[str, np.ndarray]] = []
    if case.get("run") != "no":
        session = Session(before.SerializeToString(), optimize=False)
        samples = [feeds(session, seed) for seed in range(_SAMPLES)]
    model = load(before)
    target = CpuTarget()
    objective: Any = case.get("objective", "" if case.is_lossy else "time")
    gates = (MustPay(target, objective, objective == "bytes"),) if objective else ()
    shapes: dict[str, tuple[int, ...]] = {}
    if case.get("shapes") == "observed":
        shapes = observed_shapes(model, samples[0])
    manager = PassManager(target, gates, shapes, check_each_patch=True)
    if not case.is_lossy:
        model = manager.run(model, [case.step])
        again = PassManager(target, gates)
        again.run(load(to_proto(model)), [case.step])
        return Run(case, before, to_proto(model), manager, samples, [], len(again.record.applied))
    step: Any = case.step
    if case.get("calibration"):
        scope = manager.facts(model).scopes[0]
        wanted = tuple(step.needs(scope, manager.facts(model)))
        manager = replace(
            manager,
            statistics=gather(model, load_samples(samples, session.inputs), wanted),
        )
    plan = [
        Planned(step, choice, option)
        for choice in manager.choices(model, step)
        for option in choice.options
        if option.label == case.get("option")
    ]
    done: list[Planned] = []
    for _ in range(int(case.get("repeat", "1"))):
        done += manager.apply_plan(model, plan)
    after = to_proto(model)
    again = PassManager(target)
    again.apply_plan(load(after), plan)
    return Run(case, before, after, manager, samples, done, len(again.record.applied))


def check(run: Run, *, update: bool) -> None:
    """Assert everything that a case file promises."""
    case, record = run.case, run.manager.record
    # Type inference takes what a sparse initializer feeds for sparse as well.
    sparse = any(graph.sparse_initializer for _, graph in _graphs(run.after.graph, ""))
    onnx.checker.check_model(run.after, full_check=not sparse)
    assert interface(load(run.after)) == interface(load(run.before))
    assert run.again == 0, "a second run applied something"
    _check_record(run)
    _check_outputs(run)
    actual = {"before": case.sections["before"]}
    if run.codes:
        actual["refused"] = "\n".join(sorted(run.codes))
    if record.applied:
        actual["after"] = structure(run.after)
        actual["constants"] = constants(run.after, run.before, lossy=case.is_lossy)
    else:
        assert _same(run.after, to_proto(load(run.before))), "changed without a patch"
        actual["unchanged"] = ""
    if update:
        case.write(actual)
    else:
        assert actual == case.sections


def _same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.SerializeToString(deterministic=True) == other.SerializeToString(deterministic=True)


def _check_record(run: Run) -> None:
    model = load(run.after)
    assert {r.step for r in run.manager.record.refused} <= {run.case.step.name}
    refusals: dict[str, str] = getattr(run.case.step, "refusals", {})
    for entry in run.manager.record.refused:
        code = entry.refusal.code
        assert code in refusals or code.startswith(("library-", "does-not-pay")), code
    came = {n.name for scope in scopes(model) for n in scope.graph if PASS_KEY in n.metadata_props}
    stood = {n.name for scope in scopes(load(run.before)) for n in scope.graph if n.name}
    assert not came & stood
    for number, entry in enumerate(run.manager.record.applied, 1):
        assert entry.number == number
        assert entry.title


def _check_outputs(run: Run) -> None:
    case = run.case
    if not run.samples:
        assert not run.manager.record.applied, "what is rewritten must be run"
        return
    original = Session(run.before.SerializeToString(), optimize=False)
    rewritten = Session(run.after.SerializeToString(), optimize=False)
    if case.get("outputs") == "predicted" and run.planned:
        _check_predicted(run, original, rewritten)
        return
    exactness = Exactness.ROUNDING if case.is_lossy else case.step.exactness
    if any(e.option for e in run.manager.record.applied):
        assert case.get("outputs") == "equal", "say what the outputs of a lossy case must be"
    arithmetic = arithmetic_dtype(ir.from_proto(run.before))
    verdict = compare(original, rewritten, run.samples, exactness=exactness, arithmetic=arithmetic)
    assert verdict.passed, verdict


def _check_predicted(run: Run, original: Session, rewritten: Session) -> None:
    """The output is the measured value up to a constant: its error must be the one predicted."""
    (planned,) = run.planned
    (name,) = (info.name for info in original.outputs)
    at = planned.choice.measured_at
    observed = Session(load(run.before), outputs=(at,), optimize=False)
    axis = int(run.case.get("features", "-1"))
    made = np.stack([observed.run(sample)[at] for sample in run.samples]).astype(np.float64)
    rows = np.moveaxis(made, axis, -1).reshape(-1, made.shape[axis])
    mean = 0.0 if run.case.get("energy") == "second" else rows.mean(axis=0)
    was = np.stack([original.run(sample)[name] for sample in run.samples]).astype(np.float64)
    now = np.stack([rewritten.run(sample)[name] for sample in run.samples])
    error = float(((was - now) ** 2).sum() / ((rows - mean) ** 2).sum())
    assert planned.option.error > 0
    np.testing.assert_allclose(error, planned.option.error, rtol=1e-3)
