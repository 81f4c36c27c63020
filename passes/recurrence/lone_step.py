"""Recurrences of two steps of which an exporter folded the first.

With a state of zero the first recurrent product is constant, so a single one is left and no
chain shows the steps. Here that product's input is taken for the state, and what follows from
it, up to each value that may be the next state, for a slice. It is a recurrence where the slice
is a cell, and where the same cell makes the state itself out of zeros.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from structopt_onnx.passes.recurrence.algebra import SliceAlgebra
from structopt_onnx.passes.recurrence.cells import cell
from structopt_onnx.passes.recurrence.chains import Chain
from structopt_onnx.passes.recurrence.first_step import with_first_step
from structopt_onnx.passes.recurrence.fused import Fused
from structopt_onnx.passes.recurrence.gates import States
from structopt_onnx.passes.recurrence.readings import entry
from structopt_onnx.passes.recurrence.rules import NoForm
from structopt_onnx.passes.recurrence.slices import Unrolled

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.passes.recurrence.chains import Products
    from structopt_onnx.passes.recurrence.sizes import Sizes

_RANK = 2
_MOST_GATES = 4
_STEPS = 2
_MOST_STATES = 2
_MOST_NODES = 64  # of a slice: an LSTM with peepholes and a product per gate has about 45
_FARTHEST = 1024  # nodes from the state to the next one, with those of other layers between


def folded_pairs(products: Products, facts: Facts, sizes: Sizes) -> Iterator[Fused]:
    """Yield the recurrences of two steps whose second holds a product that is alone.

    Parameters
    ----------
    products
        The graph's.
    facts, sizes
        Know constants and dimensions.
    """
    outputs = (value for node in products.order.nodes for value in node.outputs)
    read = Counter(found[:2] for value in outputs if (found := entry(value, sizes)) is not None)
    if max(read.values(), default=0) < _STEPS:
        return  # there is no sequence
    for product in products.alone:
        fused = _folded_pair(Chain((product,), 0, {}, products.order), facts, sizes)
        if fused is not None:
            yield fused


def _folded_pair(chain: Chain, facts: Facts, sizes: Sizes) -> Fused | None:
    for hidden in _hidden(chain.products[0], sizes):
        for found in _slices(chain, hidden, facts, sizes):
            algebra = SliceAlgebra(found, facts, sizes)
            for states in _endings(found, hidden, sizes):
                fused = _fused(replace(found, states=states), algebra)
                if fused is not None:
                    return fused
    return None


def _hidden(product: ir.Node, sizes: Sizes) -> Iterator[ir.Value]:
    """Yield what may be the state that a product turns into arguments of one to four gates."""
    read = product.inputs[0]
    node = read.producer() if read is not None else None
    joined = node is not None and node.domain == "" and node.op_type == "Concat"
    made = (sizes.dims(product.outputs[0]) or (None,))[-1]
    for value in node.inputs if node is not None and joined else (read,):
        dims = sizes.dims(value)
        if value is None or value.producer() is None or dims is None or len(dims) != _RANK:
            continue
        width = dims[1]
        if isinstance(width, int) and isinstance(made, int) and made in _gates(width):
            yield value


def _gates(width: int) -> tuple[int, ...]:
    return tuple(width * count for count in range(1, _MOST_GATES + 1))


def _slices(chain: Chain, hidden: ir.Value, facts: Facts, sizes: Sizes) -> Iterator[Unrolled]:
    """Yield a slice for each value that may be the next hidden state, the nearest first."""
    (product,), dims = chain.products, sizes.dims(hidden)
    maker = hidden.producer()
    known: set[ir.Value] = set()
    makers: dict[ir.Value, ir.Node] = {}
    behind = chain.order.behind([maker])[:_FARTHEST] if maker is not None else ()
    for node in behind:
        if any(value is hidden or value in makers for value in node.inputs):
            makers.update(dict.fromkeys(node.outputs, node))
    for value in [v for v in makers if sizes.dims(v) == dims][:_MOST_NODES]:
        inside = _made_of(value, makers)
        if product not in inside or len(inside) > _MOST_NODES:
            continue
        nodes = tuple(node for node in behind if node in inside)
        read = dict.fromkeys(v for n in nodes for v in n.inputs if v is not None)
        entering = [v for v in read if v not in makers and facts.tensor(v) is None]
        if len(entering) == 1:
            continue  # nothing but the state
        known = known or _behind(hidden)
        states = {v: value for v in entering if v is hidden or v in known}
        inputs = tuple(v for v in entering if v not in states)
        if inputs and len(states) <= _MOST_STATES:
            image = {v: v for v in (*entering, *(o for n in nodes for o in n.outputs))}
            copy = {node: node for node in nodes}
            yield Unrolled(chain, nodes, (image,), (copy,), states, inputs, {})


def _behind(value: ir.Value) -> set[ir.Value]:
    """Return the values that a value depends on."""
    found: set[ir.Value] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop().producer()
        new = {v for v in node.inputs if v is not None} - found if node is not None else set()
        found |= new
        waiting += new
    return found


def _made_of(value: ir.Value, makers: Mapping[ir.Value, ir.Node]) -> set[ir.Node]:
    """Return the nodes that a value depends on, of those that make the values given.

    There may be more where there are more than a slice has.
    """
    found = {makers[value]}
    waiting = [makers[value]]
    while waiting and len(found) <= _MOST_NODES:
        new = {makers[v] for v in waiting.pop().inputs if v is not None and v in makers} - found
        found |= new
        waiting += new
    return found


def _endings(
    found: Unrolled, hidden: ir.Value, sizes: Sizes
) -> Iterator[Mapping[ir.Value, ir.Value]]:
    """Yield what the states may become; an LSTM's cell state is a sum on the way to the hidden."""
    memory = next((state for state in found.states if state is not hidden), None)
    if memory is None:
        yield found.states
        return
    for node in found.nodes:
        if node.op_type == "Add" and sizes.dims(node.outputs[0]) == sizes.dims(memory):
            yield {**found.states, memory: node.outputs[0]}


def _fused(found: Unrolled, algebra: SliceAlgebra) -> Fused | None:
    try:
        rows = {state: algebra.row(value) for state, value in found.states.items()}
    except NoForm:
        return None
    if any(len(row) != 1 for row in rows.values()):
        return None
    following = {state: row[0] for state, row in rows.items()}
    known = cell(States(following, algebra.inputs()))
    fused = None if known is None else Fused(found, algebra, known)
    if fused is None or not fused.is_single() or not fused.covers_reads():
        return None
    fused = with_first_step(fused, following)
    return None if fused.before is None else fused
