"""The search for a plan within an error, on plans whose predictions and errors are given."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from structopt_onnx.api.budgets import within_error

BUDGET = 0.05


class Planning:
    """Plans by name: cost, error predicted, error measured; reprobes may change predictions."""

    def __init__(self, plans, learned) -> None:
        self.plans, self.learned = plans, learned

    def choose(self, capacity):
        fitting = [n for n, (_, predicted, _) in self.plans.items() if predicted**2 <= capacity]
        return (min(fitting, key=lambda n: self.plans[n][0], default=None),)

    def predicted(self, chosen):
        return self.plans[chosen[0]][1]

    def value(self, chosen):
        return self.plans[chosen[0]][0]


class Trials:
    def __init__(self, planning) -> None:
        self.planning = planning
        self.measured: list[str] = []

    def over(self):
        return False

    def tried(self, chosen):
        return chosen[0] in self.measured

    def of(self, chosen):
        if chosen[0] not in self.measured:
            self.measured.append(chosen[0])
        error = self.planning.plans[chosen[0]][2]
        return SimpleNamespace(
            chosen=chosen, measured=SimpleNamespace(error=error), empty=chosen[0] is None
        )

    def reprobe(self, trial):
        name = trial.chosen[0]
        if name in self.planning.learned:
            cost, _, error = self.planning.plans[name]
            self.planning.plans[name] = cost, self.planning.learned[name], error


# As seen on digits_cnn with measured times: what is safer than the last plan that failed is
# another one that failed before.
OSCILLATING = {
    "bold": (-9.0, 0.0465, 0.0941),
    "near": (-8.0, 0.0453, 0.05005),
    "other": (-7.0, 0.0395, 0.0774),
    "mild": (-5.0, 0.0336, 0.0336),
    "timid": (-1.0, 0.0065, 0.0065),
}
LEARNED = {"bold": 0.0941, "other": 0.0771, "near": 0.0451}


def search(plans, learned, budget=BUDGET):
    trials = Trials(Planning(dict(plans), learned))
    return within_error(trials, budget), trials.measured


def test_a_plan_that_failed_before_is_passed_by():
    found, measured = search(OSCILLATING, LEARNED)
    assert found.chosen == ("mild",)
    assert measured == ["bold", "near", "other", "mild"]


def test_where_every_plan_fails_none_is_found():
    wrong = {name: (cost, predicted, 1.0) for name, (cost, predicted, _) in OSCILLATING.items()}
    found, measured = search(wrong, {})
    assert found is None
    assert len(measured) == len({*measured}) <= len(wrong)


@pytest.mark.parametrize("error", [float("inf"), 1e300])
def test_what_can_not_be_run_ends_the_search(error):
    assert search({"only": (-1.0, 0.01, error)}, {})[0] is None
