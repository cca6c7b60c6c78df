"""HAT's evolution: the contract, and its generations."""

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.search import History, Problem
from gnomon.search.objectives import ParetoObjective
from gnomon.search.strategies.hat_evolution import HATEvolution
from gnomon.testing import StrategySuite
from gnomon.testing.strategy_problems import pareto_problem
from gnomon.testing.strategy_suite import distinct_rows, propose, run

SMALL = {"population": 12, "parents": 4, "mutants": 4, "crossovers": 4}


class TestHATEvolution(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: HATEvolution(**SMALL)


@pytest.fixture
def limited():
    """Quality alone under a limit, as HAT searches."""
    plain = pareto_problem()
    return Problem(plain.space, ParetoObjective(["quality"], latency_ms=3.5), plain.latency, 3.5)


def make():
    return HATEvolution(**SMALL)


def test_the_defaults_are_the_papers():
    assert HATEvolution().settings() == {
        "population": 125,
        "parents": 25,
        "mutants": 50,
        "crossovers": 50,
        "mutation_rate": 0.3,
    }


def test_every_row_is_within_the_limit_and_new(limited):
    search = run(make, limited, 60)
    assert len(distinct_rows(search)) == 60
    assert max(t.violation for t in search.history.trials) <= 0


def test_children_come_from_the_best_of_earlier_generations(limited):
    """In a crossover every gene is one of the four parents'; a mutant differs from one of them in few genes."""
    history = run(make, limited, 12).history
    order = np.argsort([t.losses[0] for t in history.trials], kind="stable")
    parents = np.stack([history.trials[i].genotype for i in order[:4]])
    first = propose(make(), limited, history, 8).genotypes
    assert len(first) == 8
    inherited = (first[:, None] == parents[None]).any(axis=1)
    assert inherited[4:].all(), "crossovers bring no gene of their own"
    assert not inherited[:4].all(), "mutants do"


def test_a_generation_ends_where_it_should(limited):
    history = run(make, limited, 12).history
    assert len(propose(make(), limited, history, 100).genotypes) == 8
    assert len(propose(make(), limited, History(()), 100).genotypes) == 12


def test_a_batch_takes_parents_of_earlier_generations_only(limited):
    """However good the first children are, the rest of their generation has the same parents."""
    search = run(make, limited, 15)
    first = [t for t in search.history.trials if t.number < 12]
    parents = np.stack([t.genotype for t in sorted(first, key=lambda t: t.losses[0])[:4]])
    rest = propose(make(), limited, search.history, 5).genotypes
    assert len(rest) == 5
    crossovers = rest[1:]  # 3 of 4 mutants are proposed
    assert (crossovers[:, None] == parents[None]).any(axis=1).all()


def test_it_beats_random_search_under_a_limit(limited):
    from gnomon.search.strategies.random import RandomStrategy

    def best(factory):
        return np.mean([run(factory, limited, 100, seed=seed).history.quality.max() for seed in range(3)])

    assert best(make) > best(RandomStrategy)


def test_two_objectives_are_refused():
    with pytest.raises(StrategyError, match="one value"):
        propose(HATEvolution(), pareto_problem(), History(()), 4)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"population": 1}, "strategy.population"),
        ({"parents": 0}, "strategy.parents"),
        ({"population": 10, "parents": 11}, "strategy.parents"),
        ({"mutants": -1}, "strategy.mutants"),
        ({"mutants": 0, "crossovers": 0}, "strategy.mutants"),
        ({"mutation_rate": 0.0}, "strategy.mutation_rate"),
        ({"mutation_rate": 1.5}, "strategy.mutation_rate"),
    ],
)
def test_settings_are_checked(settings, field):
    with pytest.raises(StrategyError, match=field):
        HATEvolution(**settings)
