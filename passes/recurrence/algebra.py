"""The algebra of a slice: forms of its values, read off the nodes that make them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from structopt_onnx.passes.recurrence.chains import signature
from structopt_onnx.passes.recurrence.forms import Algebra
from structopt_onnx.passes.recurrence.readings import Reading, reading
from structopt_onnx.passes.recurrence.rules import LINEAR, RULES, NoForm, vector

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.rules import Row
    from structopt_onnx.passes.recurrence.sizes import Sizes

_MATRIX = 2
Series = tuple["ir.Value", ...]


class Step(Protocol):
    """What one step of a recurrence is made of: an unrolled slice, or the body of a loop."""

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """The nodes, in topological order."""
        ...

    @property
    def states(self) -> Mapping[ir.Value, ir.Value]:
        """Value read by the step to the value it makes for the next to read."""
        ...

    @property
    def inputs(self) -> tuple[ir.Value, ...]:
        """Values of which each step reads another one."""
        ...

    def first(self, state: ir.Value) -> ir.Value:
        """Return a value with the shape of a state."""
        ...

    def series(self, value: ir.Value) -> tuple[ir.Value | None, ...]:
        """Return what each step that there is reads where this one reads `value`."""
        ...

    def reads(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Return what a node reads, each state by a name of its own."""
        ...


class SliceAlgebra:
    """Forms of the values of the first slice, and of what its inputs are made of.

    Linear nodes that each step applies to an input of its own belong to the algebra, up to what
    the steps read from one tensor.

    Parameters
    ----------
    found
        The unrolled recurrence.
    facts, sizes
        Know constants and dimensions.
    """

    def __init__(self, found: Step, facts: Facts, sizes: Sizes) -> None:
        self.algebra = Algebra()
        self.readings: dict[ir.Value, Reading | None] = {}
        self.inner: set[ir.Node] = set()
        """Nodes of all steps that the forms stand for, outside of the slices."""
        self.facts, self.sizes = facts, sizes
        self._slice = frozenset(found.nodes)
        self._states = frozenset(found.states)
        self._series: dict[ir.Value, Series] = {}
        for value in found.inputs:
            series = found.series(value)
            if None not in series:
                self._series[value] = tuple(v for v in series if v is not None)
        self._found = found
        batches = ((sizes.dims(value) or (1,))[0] for value in found.inputs)
        self.rows = frozenset({1, *(size for size in batches if isinstance(size, int))})
        """How many rows a constant may have; all must be equal."""
        self._rows: dict[ir.Value, Row] = {}

    def row(self, value: ir.Value) -> Row:
        """Return the features of a value as forms in a row."""
        if value not in self._rows:
            self._rows[value] = self._evaluate(value)
        return self._rows[value]

    def inputs(self) -> frozenset[ir.Value]:
        """Return the values met so far that each step reads for itself."""
        return frozenset(self._series)

    def series(self, value: ir.Value) -> Series | None:
        """Return what each step reads where the first reads `value`."""
        return self._series.get(value)

    def _evaluate(self, value: ir.Value) -> Row:
        constant = None if value in self._states else self.facts.array(value)
        if constant is not None:
            return (self.algebra.constant(vector(constant, self.rows)),)
        node = value.producer()
        rule = RULES.get(node.op_type) if node is not None and node.domain == "" else None
        if node is not None and rule is not None and value not in self._states:
            inside = self._is_inside(node)
            if inside or (rule in LINEAR and self._in_lockstep(value)):
                try:
                    row = rule(self, node, value)
                except NoForm:
                    row = None
                if row is not None:
                    return row
        return self._opaque(value)

    def _is_inside(self, node: ir.Node) -> bool:
        return node in self._slice

    def _opaque(self, value: ir.Value) -> Row:
        stands_for = self._found.first(value) if value in self._states else value
        dims = self.sizes.dims(stands_for)
        if not dims or not isinstance(dims[-1], int):
            raise NoForm(value.name)
        width = dims[-1]
        return (self.algebra.atom(self.algebra.opaque(value, 0, width)),)

    def _in_lockstep(self, value: ir.Value) -> bool:
        """Whether all steps make this input by the same node, and read no one tensor with it."""
        series = self._series.get(value)
        if series is None or self.reading(value) is not None:
            return False
        nodes = _alike(series)
        if nodes is None:
            return False
        found: list[tuple[ir.Value, Series]] = []
        for index, read in enumerate(nodes[0].inputs):
            inputs = [n.inputs[index] for n in nodes]
            if read is None or self.facts.tensor(read) is not None:
                if any(i is not read for i in inputs):
                    return False
            elif any(i is None for i in inputs):
                return False
            else:
                found.append((read, tuple(i for i in inputs if i is not None)))
        known = dict(self._series)
        for read, series in found:
            # What the first step reads twice may be two values in another.
            if known.setdefault(read, series) != series:
                return False
            own = self._found.series(read)
            if own[0] is not None and own != series:
                return False
        self._series = known
        self.inner.update(nodes)
        return True

    def reading(self, value: ir.Value) -> Reading | None:
        """Return how the steps read one tensor where the first reads `value`."""
        if value not in self.readings:
            series = self._series.get(value)
            rows = len(self.sizes.dims(value) or ()) == _MATRIX
            known = reading(series, self.sizes) if series is not None and rows else None
            self.readings[value] = known
        return self.readings[value]

    def reads(self, node: ir.Node) -> tuple[ir.Value | None, ...]:
        """Return what a node reads, each state by a name of its own."""
        return self._found.reads(node)

    def factor(self, node: ir.Node) -> Row:
        """Return what a weight is multiplied with; two weights are not multiplied into one."""
        inner, value = set(self.inner), self.reads(node)[0]
        if value is None:
            raise NoForm(node.name)
        row = self.row(value)
        if value in self._states or value.producer() in self._slice:
            return row
        if any(form.is_linear for form in row):
            self.inner = inner
            return self._opaque(value)
        return row


def _alike(series: Series) -> list[ir.Node] | None:
    """Return the nodes that make the values, one each, where all do the same."""
    made = [value.producer() for value in series]
    nodes = [node for node in made if node is not None]
    if len(set(nodes)) < len(series) or len({value.index() for value in series}) > 1:
        return None
    wanted = signature(nodes[0])
    return nodes if wanted is not None and all(signature(n) == wanted for n in nodes) else None
