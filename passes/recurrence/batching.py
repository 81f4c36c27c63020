"""Nodes of several steps that do the same, and the one node that does it for all their rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.chains import signature
from structopt_onnx.passes.recurrence.readings import entry, reading
from structopt_onnx.passes.recurrence.size_rules import BROADCAST, SAME

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    import onnx_ir as ir

    from structopt_onnx.model.edit import Fresh, Operand
    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.plumbing import Plumbing
    from structopt_onnx.passes.recurrence.sizes import Sizes

Values = tuple["ir.Value", ...]
Nodes = tuple["ir.Node", ...]
_RANK = 2
_ALONG_ROWS = {"Softmax", "LogSoftmax", "LayerNormalization", "Concat"}


@dataclass
class Batch:
    """Nodes of several steps, and the nodes that stand for them.

    Parameters
    ----------
    facts, sizes
        Know constants and dimensions.
    fixed
        Nodes that another rewrite is about.
    """

    facts: Facts
    sizes: Sizes
    fixed: Container[ir.Node]
    plumbing: Plumbing
    gone: dict[ir.Node, None] = field(default_factory=dict)
    rows: dict[Values, Operand] = field(default_factory=dict)

    def grow(self, members: Nodes) -> tuple[Values, Fresh] | None:
        """Let one node stand for members that all do the same; None where that can't be."""
        if any(node in self.fixed for node in members):
            return None
        before = len(self.plumbing.nodes), dict(self.gone), dict(self.rows)
        made = self._combined(members)
        if made is None:
            length, self.gone, self.rows = before
            del self.plumbing.nodes[length:]
            return None
        self.gone.update(dict.fromkeys(members))
        outputs = tuple(node.outputs[0] for node in members)
        self.rows[outputs] = made
        return outputs, made

    def _combined(self, members: Nodes) -> Fresh | None:
        first = members[0]
        if not self._is_rowwise(first) or any(not self._matches(first, n) for n in members):
            return None
        inputs: list[Operand] = []
        for index, value in enumerate(first.inputs):
            if value is None or self.facts.tensor(value) is not None:
                inputs.append(value)
                continue
            values = tuple(v for n in members if (v := n.inputs[index]) is not None)
            rows = self._rows(values)
            if rows is None:
                return None
            inputs.append(rows)
        name = f"{first.outputs[0].name}_rows"
        return self.plumbing.node(first.op_type, inputs, name, dict(first.attributes))

    def _matches(self, first: ir.Node, node: ir.Node) -> bool:
        if signature(first) is None or signature(first) != signature(node):
            return False
        return all(
            a is b or (a is not None and b is not None and self.facts.tensor(a) is None)
            for a, b in zip(first.inputs, node.inputs, strict=True)
        )

    def _is_rowwise(self, node: ir.Node) -> bool:
        """Whether a node of matrices does to each row what it does to it alone."""
        if node.domain != "" or len(node.outputs) != 1 or signature(node) is None:
            return False
        constant = [v is None or self.facts.tensor(v) is not None for v in node.inputs]
        dims = [self.sizes.dims(value) or () for value in node.inputs]
        matrices = all(c or len(d) == _RANK for c, d in zip(constant, dims, strict=True))
        if all(constant) or not matrices or len(self.sizes.dims(node.outputs[0]) or ()) != _RANK:
            return False
        if node.op_type == "Gemm":
            turned = "transA" in node.attributes and node.attributes["transA"].as_int()
            bias = len(node.inputs) <= _RANK or (constant[2] and _for_each_row(dims[2]))
            return not constant[0] and constant[1] and bool(bias) and not turned
        if node.op_type == "MatMul":
            return not constant[0] and constant[1] and len(dims[1]) == _RANK
        if node.op_type in _ALONG_ROWS:
            default = -1 if node.op_type == "LayerNormalization" else 1
            axis = node.attributes["axis"].as_int() if "axis" in node.attributes else default
            return axis % _RANK == 1 and (node.op_type != "Concat" or not any(constant))
        if node.op_type in BROADCAST:
            return all(not c or _for_each_row(d) for c, d in zip(constant, dims, strict=True))
        return node.op_type in SAME - {"Dropout", "BatchNormalization"} and all(constant[1:])

    def _rows(self, values: Values) -> Operand:
        """Return the rows of one value per step, below each other; None where that can't be."""
        if values in self.rows:
            return self.rows[values]
        heads = {(self.sizes.dims(v) or (None,))[0] for v in values}
        if len(set(values)) < len(values) or len(heads) > 1 or None in heads:
            return None
        parts = list(self._parts(values))
        if len(parts) > len(values) // 2:
            nodes = tuple(n for v in values if (n := v.producer()) is not None)
            alike = len(set(nodes)) == len(values) and all(v.index() == 0 for v in values)
            grown = self.grow(nodes) if alike else None
            if grown is not None:
                return grown[1]
        self.rows[values] = self.plumbing.concat(parts, 0, f"{values[0].name}_rows")
        return self.rows[values]

    def _parts(self, values: Values) -> Iterator[Operand]:
        """Yield the rows of runs of values that are read off one tensor, and of single ones."""
        start = 0
        while start < len(values):
            stop = start + 1
            known = entry(values[start], self.sizes)
            while known is not None and stop < len(values):
                following = entry(values[stop], self.sizes)
                if following is None or following[:2] != known[:2]:
                    break
                if following[2] != known[2] + stop - start:
                    break
                stop += 1
            run = values[start:stop]
            read = reading(run, self.sizes) if len(run) > 1 else None
            if read is None:
                yield from run
            elif read.axis is None and read.whole:
                yield read.source
            else:
                width = (self.sizes.dims(run[0]) or (0, 0))[1]
                stacked = read.stacked(self.plumbing, self.sizes)
                shape = (-1, width if isinstance(width, int) else 0)
                yield self.plumbing.reshape(stacked, shape, f"{read.source.name}_rows")
            start = stop


def _for_each_row(dims: Sequence[object]) -> bool:
    return len(dims) < _RANK or dims[0] == 1
