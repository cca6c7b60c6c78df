"""One change at a time, then an integer program."""

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.search import History, Problem
from gnomon.search.objectives import ParetoObjective
from gnomon.search.strategies.integer_program import IntegerProgram, single_changes
from gnomon.testing import simulate
from gnomon.testing.strategy_problems import ToyCells, ToyLatency, pareto_problem
from gnomon.testing.strategy_suite import propose


class SumsOnly(ToyLatency):
    """Each decision has its own price, whatever the others are."""

    def predict(self, genotypes):
        mean = 1.0 + genotypes @ prices(self.space, 1)
        return mean, np.full(len(mean), 1e-6)


def prices(space, seed):
    return np.random.default_rng(seed).uniform(0.2, 1.0, len(space.decisions))


@pytest.fixture
def problem():
    space = ToyCells(2)
    limit_ms = 3.0
    return Problem(space, ParetoObjective(("quality",), latency_ms=limit_ms), SumsOnly(space), limit_ms)


def quality(problem):
    return lambda rows: np.asarray(rows @ prices(problem.space, 2))


def test_where_parts_add_up_the_first_solution_is_the_best_of_all(problem):
    space = problem.space
    reference = space.canonical(np.array([space.algebra.cardinalities], dtype=np.int8) - 1)[0]
    singles = 1 + len(single_changes(space, reference))
    search = simulate(IntegerProgram, problem, quality(problem), evaluations=singles + 1)
    rows = space.enumerate()
    best = quality(problem)(rows[problem.violation(rows) <= 0]).max()
    found = search.history.evaluated[-1]
    assert found.violation <= 0
    assert found.quality == pytest.approx(best)
    assert problem.violation(reference[None])[0] > 0


def test_solutions_lie_along_a_front():
    plain = pareto_problem(stages=3, limit_ms=3.0)
    search = simulate(IntegerProgram, plain, plain.space.quality, evaluations=60)
    reference = search.history.trials[0].genotype
    singles = 1 + len(single_changes(plain.space, reference))
    solved = list(search.history.evaluated[singles:])
    latencies = np.array([trial.losses[1] for trial in solved])
    assert max(trial.violation for trial in solved) <= 0
    assert latencies.max() > 1.5 * latencies.min()


def test_a_change_is_of_one_decision_and_what_it_makes_active():
    space = ToyCells(2)
    reference = space.genotype({"width0": 8, "op0": "skip", "width1": 8, "op1": "skip"})
    changes = single_changes(space, reference)
    assert len({tuple(row) for row in changes}) == len(changes) == 2 * (3 + 2)
    assert ((changes != reference).sum(axis=1) == 1).all()


def test_the_reference_comes_first():
    config = {"width0": 16, "op0": "skip", "width1": 8, "op1": "skip"}
    plain = pareto_problem(stages=2)
    rows = propose(IntegerProgram(config), plain, History(()), 4).genotypes
    assert np.array_equal(rows[0], plain.space.genotype(config))


def test_an_unknown_reference_is_named():
    with pytest.raises(StrategyError, match=r"strategy\.reference='mobilenet'"):
        IntegerProgram("mobilenet").check(pareto_problem().space)


class NamedCells(ToyCells):
    """With one network that meets the limit and one that does not."""

    @property
    def named(self):
        return {name: {f"{part}{i}": value for i in range(2) for part, value in genes} for name, genes in NAMED.items()}


NAMED = {
    "large": (("width", 32), ("op", "conv"), ("kernel", 5)),
    "small": (("width", 8), ("op", "depthwise"), ("kernel", 3)),
}


def test_named_networks_within_the_limit_come_before_the_first_program():
    space = NamedCells(2)
    limit_ms = 2.0
    problem = Problem(space, ParetoObjective(("quality",), latency_ms=limit_ms), ToyLatency(space), limit_ms)
    singles = 1 + len(single_changes(space, space.named_genotype("large")))
    search = simulate(IntegerProgram, problem, space.quality, evaluations=singles + 2, batch=4)
    first, second = search.history.evaluated[singles:]
    assert np.array_equal(first.genotype, space.named_genotype("small"))
    assert second.violation <= 0
