"""The conformance suite must fail on what it is there to catch."""

import inspect

import numpy as np
import pytest

from gnomon.errors import GnomonError, StrategyError
from gnomon.search import History, Proposal, Strategy
from gnomon.search.strategies._candidates import feasible_pool
from gnomon.search.strategies.aging_evolution import AgingEvolution
from gnomon.search.strategies.random import RandomStrategy
from gnomon.testing import StrategySuite
from gnomon.testing.strategy_problems import pareto_problem, scalar_problem
from gnomon.testing.strategy_suite import run

FAILURES = (AssertionError, pytest.fail.Exception, TypeError, ValueError, IndexError, GnomonError)


class Broken(Strategy):
    """Random search through which one thing goes wrong."""

    name = "broken"

    def propose(self, problem, history, n, rng):
        return Proposal(feasible_pool(problem, history, n, rng).genotypes[:n])


class Refusing(Broken):
    def check(self, space):
        raise StrategyError("no space is good enough", field="strategy", value=space.name)


class HiddenState(Broken):
    def __init__(self):
        self.calls = 0

    def propose(self, problem, history, n, rng):
        self.calls += 1
        return super().propose(problem, history, n, np.random.default_rng([self.calls, history.step]))


class OwnSeed(Broken):
    def propose(self, problem, history, n, rng):
        return super().propose(problem, history, n, np.random.default_rng(len(history.trials)))


class GlobalGenerator(Broken):
    def propose(self, problem, history, n, rng):
        np.random.rand()  # noqa: NPY002 - what it must not do
        return super().propose(problem, history, n, rng)


class Entropy(Broken):
    def propose(self, problem, history, n, rng):
        return super().propose(problem, history, n, np.random.default_rng())


class NotCanonical(Broken):
    def propose(self, problem, history, n, rng):
        return Proposal(problem.space.algebra.sample(n, rng))


class TooMany(Broken):
    def propose(self, problem, history, n, rng):
        return super().propose(problem, history, n + 1, rng)


class OutOfRange(Broken):
    def propose(self, problem, history, n, rng):
        return Proposal(super().propose(problem, history, n, rng).genotypes + 50)


class Repeats(Broken):
    def propose(self, problem, history, n, rng):
        return super().propose(problem, History(()), n, np.random.default_rng(5))


class ArrayState(Broken):
    def propose(self, problem, history, n, rng):
        rows = super().propose(problem, history, n, rng).genotypes
        return Proposal(rows, state={"mean": rows.mean(axis=0)})


class TupleAttributes(Broken):
    def propose(self, problem, history, n, rng):
        rows = super().propose(problem, history, n, rng).genotypes
        return Proposal(rows, attributes=({"pair": (1, 2)},) * len(rows))


class OneAttributeForAll(Broken):
    def propose(self, problem, history, n, rng):
        return Proposal(super().propose(problem, history, n, rng).genotypes, attributes=({},))


class FragileWithoutEvaluations(Broken):
    def propose(self, problem, history, n, rng):
        if history.trials:
            history.losses.min(axis=0)
        return super().propose(problem, history, n, rng)


class NeedsFeasible(Broken):
    def propose(self, problem, history, n, rng):
        rows = super().propose(problem, history, n, rng).genotypes
        rows = rows[problem.violation(rows) <= 0]
        rows[0]
        return Proposal(rows)


class SilentlyOneObjective(Broken):
    max_objectives = 1


class Unlearning(Broken):
    """Calls itself guided and takes the slowest of what is feasible."""

    def propose(self, problem, history, n, rng):
        rows = feasible_pool(problem, history, n, rng).genotypes
        return Proposal(rows[np.argsort(-problem.latency.predict_mean(rows))[:n]])


def learner():
    """A strategy that does learn, for the one check that random search fails."""
    return AgingEvolution(population=20, tournament=8)


def check(name, factory):
    """One test of the suite on these strategies, as pytest would call it."""
    problem = scalar_problem() if factory().max_objectives == 1 else pareto_problem()
    method = getattr(StrategySuite(), name)
    wanted = inspect.signature(method).parameters
    fixtures = {"strategy_factory": factory, "problem": problem, "n": 3}
    if "search" in wanted:
        fixtures["search"] = run(factory, problem, StrategySuite.evaluations)
    method(**{key: value for key, value in fixtures.items() if key in wanted})


BROKEN = [
    ("test_same_history_same_proposal", Entropy),
    ("test_calls_leave_nothing_behind", HiddenState),
    ("test_rebuilt_at_every_step", HiddenState),
    ("test_another_seed_another_proposal", OwnSeed),
    ("test_global_generators_are_left_alone", GlobalGenerator),
    ("test_rows_are_canonical", NotCanonical),
    ("test_rows_are_canonical", OutOfRange),
    ("test_at_most_n_rows", TooMany),
    ("test_it_moves_on", Repeats),
    ("test_state_and_attributes_are_json", ArrayState),
    ("test_state_and_attributes_are_json", TupleAttributes),
    ("test_state_and_attributes_are_json", OneAttributeForAll),
    ("test_nothing_but_failures", FragileWithoutEvaluations),
    ("test_nothing_is_feasible", NeedsFeasible),
    ("test_three_objectives", SilentlyOneObjective),
    ("test_better_than_random", Unlearning),
    ("test_it_takes_a_space_that_it_searches", Refusing),
]


@pytest.mark.parametrize(("name", "strategy"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_suite_fails_on(name, strategy):
    check(name, learner if name == "test_better_than_random" else RandomStrategy)
    with pytest.raises(FAILURES):
        check(name, strategy)


def test_every_check_is_tried():
    tried = {name for name, _ in BROKEN}
    known = {name for name in dir(StrategySuite) if name.startswith("test_")}
    # These hold for anything that keeps the contract at all; the others each catch something above.
    assert known - tried == {
        "test_settings_make_it_again",
        "test_failures",
        "test_equal_qualities",
        "test_pending",
        "test_exhausted_space",
        "test_one_objective",
    }
