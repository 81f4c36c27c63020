from __future__ import annotations

import numpy as np
import pytest

from structopt_onnx.validation.agreement import DecisionAgreement

LOGITS = np.array([[1.0, 3.0, 2.0], [0.0, -1.0, -2.0]], np.float32)
UNIT = np.array([[0.9, 0.2, 0.4, 0.6]], np.float32)
SOFTMAX = np.array([[[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]]], np.float32)
MAP = np.linspace(0, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
PIXELS = np.stack([np.zeros((2, 2)), np.full((2, 2), 3.0)])[None].astype(np.float32)
LAST, AXIS_1 = "largest along the last axis", "largest along axis 1"


def flipped(array, *places):
    """The same with the decision of single elements or rows turned."""
    made = array.copy()
    for place in places:
        made[place] = 1 - made[place] if array.dtype == np.float32 else made[place] + 1
    return made


@pytest.mark.parametrize(
    ("declared", "reference", "candidate", "decision", "share"),
    [
        (("N", 3), LOGITS, LOGITS * 2, LAST, 1.0),
        (("N", 3), LOGITS, -LOGITS, LAST, 0.0),
        (("N", 3), LOGITS, np.array([[1, 3, 2], [-3, -1, -2]], np.float32), LAST, 0.5),
        # A pitch tracker's activations are probabilities that do not sum up to 1.
        (("N", 4), UNIT, UNIT * 0.4, LAST, 1.0),
        # The same values with a free last axis: a probability of speech per frame.
        (("N", "T"), UNIT, UNIT * 0.8, "side of 0.5", 0.75),
        (("T",), UNIT[0], flipped(UNIT[0], 0, 1, 2, 3), "side of 0.5", 0.0),
        (("N", None, None), SOFTMAX, SOFTMAX * 0.5, LAST, 1.0),
        ((1, 1, 4, 4), MAP, flipped(MAP, (0, 0, 0, 0)), "side of 0.5", 15 / 16),
        (("N", 1, "H", "W"), MAP, MAP, "side of 0.5", 1.0),
        (("N", 2, 2, 2), PIXELS, PIXELS[:, ::-1], AXIS_1, 0.0),
        (("N", 2, "H", "W"), PIXELS, PIXELS + 1, AXIS_1, 1.0),
        (("N", 1), np.float32([[2], [-1]]), np.float32([[3], [1]]), "sign", 0.5),
        (("N", 4), np.arange(4)[None], flipped(np.arange(4)[None], (0, 3)), "each value", 0.75),
        ((), np.array(True), np.array(True), "each value", 1.0),
        (("N", 3), LOGITS, LOGITS[:1], LAST, None),
        (("N", 3), LOGITS[:0], LOGITS[:0], "", None),
        (("N",), ["a"], ["a"], "", None),
    ],
)
def test_what_counts_as_a_decision(declared, reference, candidate, decision, share):
    counter = DecisionAgreement(declared)
    counter.update(reference, candidate)
    assert counter.decision == decision
    assert counter.share() == share


def test_one_run_out_of_the_unit_interval_makes_signs_the_decisions():
    counter = DecisionAgreement(("N", 1))
    for value, other in ((0.2, 0.7), (3.0, 2.0)):
        counter.update(np.float32([[value]]), np.float32([[other]]))
    assert (counter.decision, counter.share(), counter.decisions) == ("sign", 1.0, 2)


def test_decisions_are_rows_where_they_are_classes():
    counter = DecisionAgreement(("N", 3))
    counter.update(LOGITS, LOGITS)
    assert counter.decisions == 2


def test_the_standard_error_counts_runs_and_not_decisions():
    counter = DecisionAgreement(("N", 3))
    for equal in (True, True, False, True):
        counter.update(LOGITS, LOGITS if equal else -LOGITS)
    # Of 4 runs of 2 decisions each, one run differs in both: as much is known as of 4 decisions.
    assert counter.share() == 0.75
    assert counter.standard_error() == pytest.approx(np.std([1, 1, 0, 1], ddof=1) / 2)


def test_the_standard_error_weighs_runs_by_their_decisions():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 9, 400)
    counter = DecisionAgreement(("N", 1))
    shares = []
    for size in sizes:
        signs = rng.choice([-2.0, 2.0], (size, 1), p=[0.2, 0.8]).astype(np.float32)
        counter.update(np.full((size, 1), 2.0, np.float32), signs)
        shares.append((signs > 0).sum())
    draws = rng.integers(0, 400, (2000, 400))
    spread = np.std(np.array(shares)[draws].sum(axis=1) / sizes[draws].sum(axis=1))
    assert counter.standard_error() == pytest.approx(spread, rel=0.1)


def test_one_run_has_no_spread():
    counter = DecisionAgreement(("N", 3))
    assert counter.standard_error() == 0
    counter.update(LOGITS, -LOGITS)
    assert counter.standard_error() == 0
