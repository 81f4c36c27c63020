"""What a pass is and what it may propose: patches, choices and refusals."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, get_args

from structopt_onnx.rewriting.cost import Objective

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import onnx_ir as ir

    from structopt_onnx.model.exactness import Exactness
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope
    from structopt_onnx.model.statistic import Statistic
    from structopt_onnx.rewriting.cost import Cost

Match = TypeVar("Match")


@dataclass(frozen=True)
class Refusal:
    """A site that looked right and was left alone.

    Parameters
    ----------
    code
        Stable identifier; each pass lists its own in `Pass.refusals`.
    detail
        The case at hand, in one line.
    node
        Name of the node or weight it is about.
    """

    code: str
    detail: str
    node: str


@dataclass(frozen=True, eq=False)
class Option:
    """One way to rewrite a site.

    Parameters
    ----------
    label
        Short name within the choice, such as ``rank 48``; stable, since records replay by it.
    error
        Predicted local error: mean squared error at `Choice.measured_at` over its variance, or
        over its second moment where the fit is not centred.
    before, after
        Cost of the site's region now and with this option.
    patch
        Builds the patch on a model that holds the same weights under the same names; a refusal
        with code ``superseded`` when the site is gone.
    rank
        How many directions of `Choice.spectrum` it keeps; 0 where it is no cut of them.
    """

    label: str
    error: float
    before: Cost
    after: Cost
    patch: Callable[[Scope, Facts], Patch | Refusal]
    rank: int = 0


@dataclass(frozen=True, eq=False)
class Choice:
    """One site with options of rising error and falling cost; doing nothing is always allowed.

    Parameters
    ----------
    site
        Names of the weights it is about. Choices that share one exclude each other.
    measured_at
        Name of the value where the local error is defined.
    options
        The ways to rewrite it.
    basis
        What the predicted errors rest on: ``calibration`` or ``weights``.
    support
        Observations per dimension of the statistics behind a calibrated fit; below about 4 the
        predicted errors are too good to be true.
    spectrum
        Share of the output's energy along each direction that a rank keeps or leaves out, as far
        as ranks are on offer; empty where there is none. For reports.
    """

    site: frozenset[str]
    measured_at: str
    options: tuple[Option, ...]
    basis: str
    support: float = 0.0
    spectrum: tuple[float, ...] = ()


@dataclass(frozen=True)
class Pass(ABC):
    """Looks at a graph and proposes edits; never edits. Its dataclass fields are its options.

    Class attributes: `name` as used in pipeline text, `exactness`, `refusals` (every code with
    its meaning), `canonical` for passes whose patches need not lower the cost because they
    bring a graph into the form others look for, `encodes` for those that run once everything else
    is done, because others would undo them, `lowers`: the costs of which any may fall, `brief`
    for those whose choices take seconds at most, so that a first look can afford them, and
    `counts_zeros` for those whose choices count weights by what they take encoded.
    """

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    refusals: ClassVar[Mapping[str, str]] = {}
    canonical: ClassVar[bool] = False
    encodes: ClassVar[bool] = False
    lowers: ClassVar[frozenset[Objective]] = frozenset(get_args(Objective))
    brief: ClassVar[bool] = True
    counts_zeros: ClassVar[bool] = False

    def needs(self, scope: Scope, facts: Facts) -> Iterable[Statistic]:
        """Return the activation statistics that would help this pass; none by default."""
        del scope, facts
        return ()

    @abstractmethod
    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Choice | Refusal]:
        """Yield what could be done in one scope; reads only."""

    def text(self) -> str:
        """Return the pass as pipeline text, options that differ from their defaults included."""
        changed = [
            f"{f.name}={_literal(getattr(self, f.name))}"
            for f in fields(self)
            if getattr(self, f.name) != f.default
        ]
        return self.name + (f"{{{','.join(changed)}}}" if changed else "")


def _literal(value: Any) -> str:  # noqa: ANN401 - an option's value may be any plain type
    return str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class NodePass(Pass, Generic[Match]):
    """A pass that starts from single nodes: match one, then describe its rewrite."""

    roots: ClassVar[frozenset[str]]

    @abstractmethod
    def match(self, node: ir.Node, scope: Scope, facts: Facts) -> Match | Refusal | None:
        """Look at one node: what was found, why it must be left alone, or None."""

    @abstractmethod
    def rewrite(self, scope: Scope, facts: Facts, match: Match) -> Patch | Choice | Refusal | None:
        """Describe the edit of a match; None when there is nothing to gain."""

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Choice | Refusal]:
        """Match every node of the root operator types and rewrite what matched."""
        for node in scope.graph:
            if node.domain != "" or node.op_type not in self.roots:
                continue
            found = self.match(node, scope, facts)
            if found is None:
                continue
            proposal = found if isinstance(found, Refusal) else self.rewrite(scope, facts, found)
            if proposal is not None:
                yield proposal


@dataclass(frozen=True)
class Cleanup(ABC):
    """A named pipeline step that lets a library edit the model in place.

    The manager hands it a clone, records what differs afterwards and keeps the clone only when
    it is valid and not larger.
    """

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    largest: ClassVar[int | None] = None  # node count above which the library does not scale

    @abstractmethod
    def run(self, model: ir.Model) -> None:
        """Edit the model in place."""

    def text(self) -> str:
        """Return the step as pipeline text."""
        return self.name


Step = Pass | Cleanup
