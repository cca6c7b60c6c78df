"""Expected hypervolume improvement under a latency limit that holds with a stated probability."""

from __future__ import annotations

import json
from functools import partial
from statistics import NormalDist

import numpy as np
import pytest
from omegaconf import OmegaConf

from gnomon.conf.compose import compose, groups
from gnomon.errors import StrategyError
from gnomon.predictors import LatencyModel
from gnomon.predictors.quality_trees import BoostedTreesQuality
from gnomon.predictors.upper_gaussian_process import UpperGaussianProcess
from gnomon.search import Problem
from gnomon.search.instantiate import instantiate
from gnomon.search.objectives import ParetoObjective
from gnomon.search.strategies._acquisition import Acquisition
from gnomon.search.strategies.nsga2 import NSGA2
from gnomon.search.strategies.random import RandomStrategy
from gnomon.testing.strategy_problems import ToyCells, ToyLatency, pareto_problem
from gnomon.testing.strategy_suite import run


class Unsure(LatencyModel):
    """Like the toy's, but known to within 30 %."""

    def __init__(self, space):
        self.exact = ToyLatency(space)

    def predict(self, genotypes):
        mean, _ = self.exact.predict(genotypes)
        return mean, 0.3 * mean


def problem_of(latency, confidence):
    space = ToyCells(4)
    return Problem(space, ParetoObjective(latency_ms=3.0, confidence=confidence), latency(space), 3.0)


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.95])
def test_violation_and_feasibility_are_two_views_of_one_limit(confidence):
    problem = problem_of(Unsure, confidence)
    rows = problem.space.sample(500, np.random.default_rng(0))
    holds = problem.violation(rows) <= 0
    np.testing.assert_array_equal(holds, problem.feasibility(rows) >= confidence)
    assert 0 < holds.mean() < 1
    mean, std = problem.latency.predict(rows[:1])
    expected = NormalDist(float(mean[0]), float(std[0])).cdf(3.0)
    assert problem.feasibility(rows[:1])[0] == pytest.approx(expected)


def test_a_sure_latency_is_within_the_limit_or_not():
    objective = ParetoObjective(latency_ms=3.0)
    assert objective.feasibility(np.array([2.0, 3.0, 4.0]), np.zeros(3), 3.0).tolist() == [1.0, 1.0, 0.0]
    assert objective.feasibility(np.array([2.0]), np.ones(1), None).tolist() == [1.0]


def test_what_holds_the_limit_is_proposed_first_however_good_the_rest():
    problem = problem_of(Unsure, 0.9)
    history = run(RandomStrategy, problem, 30).history
    predictor = UpperGaussianProcess(problem.space).fit(history.genotypes, history.quality)
    rows = np.unique(problem.space.sample(300, np.random.default_rng(4)), axis=0)
    holds = problem.violation(rows) <= 0
    few = np.concatenate([np.flatnonzero(~holds), np.flatnonzero(holds)[:3]])
    picked = Acquisition(problem, history, predictor, rows[few], 8, np.random.default_rng(0)).pick(8)
    assert holds[few][picked].tolist() == [True] * 3 + [False] * 5
    others = problem.feasibility(rows[few])
    assert others[picked[3:]].mean() > others[~holds[few]].mean()


def test_a_stricter_confidence_proposes_faster_networks():
    latencies = {}
    for confidence in (0.5, 0.95):
        problem = problem_of(Unsure, confidence)
        search = run(lambda: NSGA2(initial=10, population=100, generations=3, draws=4), problem, 40)
        assert (problem.violation(search.history.genotypes) <= 0).all()
        latencies[confidence] = problem.latency.predict_mean(search.history.genotypes).max()
    assert latencies[0.95] < latencies[0.5] - 0.3


@pytest.mark.parametrize("name", groups()["quality_predictor"])
def test_every_quality_predictor_guides_the_default_strategy(name):
    config = compose("search", [f"quality_predictor={name}"])
    node = OmegaConf.to_container(config.strategy)
    strategy = instantiate(node | {"initial": 8, "population": 60, "generations": 2, "draws": 4}, "strategy")
    problem = pareto_problem()
    search = run(lambda: strategy, problem, 24)
    assert len(search.history.evaluated) == 24
    assert search.fills == 0
    given = {key: value for key, value in node["quality_predictor"].items() if value is not None}
    kept = strategy.settings()["quality_predictor"]
    assert {key: kept[key] for key in given} == given


def test_settings_remake_a_strategy_with_another_quality_predictor():
    settings = json.loads(json.dumps(NSGA2(quality_predictor=partial(BoostedTreesQuality, trees=5)).settings()))
    assert settings["quality_predictor"]["trees"] == 5
    made = NSGA2(**settings).quality_predictor(ToyCells(2))
    assert isinstance(made, BoostedTreesQuality)
    assert made.trees == 5
    with pytest.raises(StrategyError, match="quality_predictor"):
        NSGA2(quality_predictor=3)
