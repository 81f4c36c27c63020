"""remove-dead-channels: channels, rows and units that change nothing are not computed.

What it does
    Finds channels that are constant, that nobody reads with a weight other than zero, or that are
    multiples of other channels, by what stored weights say and however many there are. It takes
    them out of every value, weight, bias and statistic on their way: a constant goes into the
    reader's bias, the weights of a double are added to those of what it doubles. Channels on both
    sides of an operator that works on each of them go together, those of a grouped convolution
    whole groups at a time, and hidden units of RNN, GRU and LSTM with their rows in all gates.

Why
    Training leaves dead units, and pruning makes them. A zero in a weight costs as much as any
    other number; a channel left out costs nothing.

Leaves alone
    Channels of graph inputs and outputs, and those that a subgraph, a softmax or normalization
    over channels, or an operator that is not known reads. Constants other than 0 before a
    convolution that pads, for at the border they are not what they are inside. Sums and products
    of which one operand is alive. Weights that are computed, can be overridden, or are read in
    another form too, unless fewer are stored afterwards. Functions.

Exactness
    ROUNDING: sums have fewer terms, and constants are computed in float64. Infinities and NaN
    that a weight of zero would let through don't count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from structopt_onnx.model.edit import Fresh
from structopt_onnx.model.exactness import Exactness
from structopt_onnx.passes.sparsity.analysis import analysis
from structopt_onnx.passes.sparsity.cutting import regions, without
from structopt_onnx.rewriting.passes import Pass, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

    from structopt_onnx.model.facts import Facts
    from structopt_onnx.model.patch import Patch
    from structopt_onnx.model.scope import Scope


@dataclass(frozen=True)
class RemoveDeadChannels(Pass):
    """Has no options."""

    name: ClassVar[str] = "remove-dead-channels"
    exactness: ClassVar[Exactness] = Exactness.ROUNDING
    refusals: ClassVar[dict[str, str]] = {
        "bias-can-change": "the bias that would take a constant is computed",
        "captured": "a subgraph reads the channels",
        "graph-output": "the channels are an output",
        "last-channel": "nothing would be left of a value",
        "made-elsewhere": "they go with channels whose maker can't make fewer",
        "may-broadcast": "the sizes of the operands are not known to be equal",
        "mixes-channels": "an operator looks at all channels together",
        "not-finite": "a type can't hold a bias or weight that something is added to",
        "not-floating": "channels become integers, or are multiplied by some",
        "operands-disagree": "another operand of a sum or product is alive",
        "padded-constant": "a constant is not one at a border of zeros",
        "partial-group": "others of the same group of a convolution are alive",
        "unknown-reader": "an operator that is not followed reads the channels",
        "weight-can-change": "a weight that reads the channels is computed or can be overridden",
        "weight-shared": "a weight is read elsewhere too, and more would be stored",
    }

    def propose(self, scope: Scope, facts: Facts) -> Iterator[Patch | Refusal]:
        """Yield one patch per region that loses channels, and the channels that only look dead."""
        if scope.in_function:
            return
        table, alive = analysis(scope, facts)
        for region in regions(table, alive.cut):
            with np.errstate(all="ignore"):  # what is not finite is refused
                patch = without(table, alive.cut, region)
            code = _fault(patch, facts)
            yield Refusal(code, "", _name(patch.anchor)) if code else patch
        for blocked in alive.blocked:
            shown = ", ".join(str(channel) for channel in blocked.channels[:8])
            more = ", ..." if len(blocked.channels) > 8 else ""  # noqa: PLR2004 - as shown
            yield Refusal(blocked.code, f"channels {shown}{more}", _name(blocked.node))


def _name(node: ir.Node) -> str:
    return node.name or node.outputs[0].name or ""


def _fault(patch: Patch, facts: Facts) -> str | None:
    """Say by a refusal code that more would be stored than before, or what no type can hold."""
    operands = {o for edit in patch.edits.values() for o in edit.operands()}
    added = [o.tensor for o in operands if isinstance(o, Fresh) and _is_floating(o.tensor)]
    removed = [node.outputs[0] for node in patch.removed() if node.op_type == "Constant"]
    gone = [facts.tensor(value) for value in (*patch.dying_initializers(), *removed)]
    if sum(t.size for t in added if t) > sum(t.size for t in gone if t and _is_floating(t)):
        return "weight-shared"
    finite = (np.isfinite(t.numpy().astype(np.float32)).all() for t in added if t)
    return None if all(finite) else "not-finite"


def _is_floating(tensor: ir.TensorProtocol | None) -> bool:
    return tensor is not None and tensor.dtype.is_floating_point()
