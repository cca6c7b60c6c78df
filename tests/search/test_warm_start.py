"""Strategies that begin with what a cheap figure promises."""

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.search.history import History
from gnomon.search.strategies.aging_evolution import AgingEvolution
from gnomon.search.strategies.nsga2 import NSGA2
from gnomon.search.strategies.warm_start import WarmStart
from gnomon.testing import StrategySuite, simulate
from gnomon.testing.strategy_problems import ToyRanking, pareto_problem, scalar_problem


def warm(noise=4.0):
    return WarmStart(AgingEvolution(population=12, tournament=4), ToyRanking(noise), candidates=60, initial=12)


class TestWarmStart(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return warm


class TestWarmStartOfTheDefault(StrategySuite):
    guided_evaluations = 40

    @pytest.fixture
    def strategy_factory(self):
        inner = {"initial": 10, "population": 100, "generations": 3, "draws": 4}
        return lambda: WarmStart(NSGA2(**inner), ToyRanking(), candidates=40, initial=10)


def test_the_first_evaluations_are_better_than_random_ones():
    problem = scalar_problem()
    warmed, cold = (
        [
            simulate(factory, problem, problem.space.quality, evaluations=12, batch=6, seed=seed).history.losses.mean()
            for seed in range(5)
        ]
        for factory in (warm, lambda: AgingEvolution(population=12, tournament=4))
    )
    assert np.mean(warmed) < np.mean(cold) - 5


def test_candidates_are_ranked_once(monkeypatch):
    calls = []
    quality = ToyRanking.quality
    monkeypatch.setattr(ToyRanking, "quality", lambda *arguments: calls.append(1) or quality(*arguments))
    problem = pareto_problem()
    simulate(warm, problem, problem.space.quality, evaluations=30, batch=5)
    assert len(calls) == 1


def test_the_strategy_that_takes_over_keeps_its_own_state():
    class Counting(AgingEvolution):
        def propose(self, problem, history, n, rng):
            proposal = super().propose(problem, history, n, rng)
            return type(proposal)(proposal.genotypes, {"count": 1 + (history.state or {"count": 0})["count"]})

    problem = pareto_problem()
    search = simulate(
        lambda: WarmStart(Counting(12, 4), ToyRanking(), candidates=20, initial=10),
        problem,
        problem.space.quality,
        evaluations=30,
        batch=5,
    )
    assert search.history.state["inner"] == {"count": len(search.proposals) - 2}


def test_proposed_are_the_best_candidates_front_by_front():
    problem = pareto_problem()
    exact = WarmStart(AgingEvolution(), ToyRanking(0.0), candidates=100, initial=10)
    rows = exact.propose(problem, History(()), 10, np.random.default_rng(0)).genotypes
    everything = WarmStart(AgingEvolution(), ToyRanking(0.0), candidates=100, initial=100)
    others = everything.propose(problem, History(()), 100, np.random.default_rng(0)).genotypes
    ours = problem.losses(rows, problem.space.quality(rows))
    theirs = problem.losses(others, problem.space.quality(others))
    beaten = (theirs[None] <= ours[:1, None]).all(2) & (theirs[None] < ours[:1, None]).any(2)
    assert not beaten.any(), "the first proposal is on the candidates' front"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "aging"}, "strategy.strategy"),
        ({"ranking": 3}, "strategy.ranking"),
        ({"initial": 0}, "strategy.initial=0"),
        ({"candidates": 5, "initial": 6}, "strategy.candidates=5"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(StrategyError, match=message):
        WarmStart(**{"strategy": AgingEvolution(), "ranking": ToyRanking(), **changes})


def test_a_figure_that_is_none_is_refused():
    class Broken(ToyRanking):
        def quality(self, space, genotypes, seed):
            return np.full(len(genotypes), np.nan)

    strategy = WarmStart(AgingEvolution(), Broken(), candidates=10, initial=5)
    with pytest.raises(StrategyError, match="finite"):
        strategy.propose(pareto_problem(), History(()), 5, np.random.default_rng(0))


def test_the_shipped_option_ranks_by_proxies():
    from pathlib import Path

    from omegaconf import OmegaConf

    import gnomon.conf
    from gnomon.search import Problem
    from gnomon.search.instantiate import instantiate
    from gnomon.search.objectives import ParetoObjective
    from gnomon.search_spaces.nasbench201 import NASBench201

    node = OmegaConf.load(Path(gnomon.conf.__file__).parent / "strategy" / "warm_start.yaml")
    node.candidates, node.initial, node.ranking.batch_size = 12, 4, 4
    space = NASBench201((3, 8, 8), classes=3, channels=4, cells=1)

    class Latency:
        def predict(self, genotypes):
            mean = space.costs(genotypes).macs
            return mean, 0 * mean

        def predict_mean(self, genotypes):
            return self.predict(genotypes)[0]

    problem = Problem(space, ParetoObjective(), Latency())
    strategy = instantiate(node, "strategy")
    first, again = (strategy.propose(problem, History(()), 4, np.random.default_rng(0)) for _ in range(2))
    assert first.genotypes.shape == (4, 6)
    np.testing.assert_array_equal(first.genotypes, again.genotypes)
    assert len(first.state["queue"]) == 4
