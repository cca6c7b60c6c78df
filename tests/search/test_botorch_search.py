"""BoTorch's hypervolume improvement as a strategy."""

import subprocess
import sys

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.search import History, Problem
from gnomon.search.objectives import ParetoObjective
from gnomon.search.strategies.botorch_search import BoTorchSearch, _standardised
from gnomon.search.strategies.random import RandomStrategy
from gnomon.testing import StrategySuite
from gnomon.testing.strategy_problems import ToyCells, ToyLatency, pareto_problem, scalar_problem
from gnomon.testing.strategy_suite import propose, run, score


def small(noisy=False):
    return BoTorchSearch(noisy, initial=6, candidates=48, samples=16)


@pytest.mark.slow
class TestBoTorch(StrategySuite):
    """Takes a second a step."""

    evaluations = 12
    guided_evaluations = 30

    @pytest.fixture
    def strategy_factory(self):
        pytest.importorskip("botorch")
        return small


@pytest.mark.parametrize("noisy", [False, True])
def test_a_step_brings_unseen_feasible_rows(noisy):
    pytest.importorskip("botorch")
    problem = pareto_problem()
    history = run(RandomStrategy, problem, 12).history
    first, second = (propose(small(noisy), problem, history, 3) for _ in range(2))
    assert np.array_equal(first.genotypes, second.genotypes)
    assert len({*map(tuple, first.genotypes.tolist())} - {*map(tuple, history.known.tolist())}) == 3
    assert (problem.violation(first.genotypes) <= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("make_problem", [pareto_problem, scalar_problem])
def test_better_than_random(noisy, make_problem):
    pytest.importorskip("botorch")
    problem = make_problem()
    found = score(run(lambda: small(noisy), problem, 26, lag=2), problem)
    assert found > np.mean([score(run(RandomStrategy, problem, 26, seed=seed), problem) for seed in range(3)])


def test_without_the_package_it_says_what_to_install():
    code = (
        "import sys; sys.modules['botorch'] = None\n"
        "import numpy as np\n"
        "from gnomon.search import History\n"
        "from gnomon.search.strategies.botorch_search import BoTorchSearch\n"
        "from gnomon.testing.strategy_problems import pareto_problem\n"
        "from gnomon.errors import DependencyError\n"
        "try:\n"
        "    BoTorchSearch().propose(pareto_problem(), History(()), 1, np.random.default_rng(0))\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "gnomon-nas[botorch]" in shown


def test_too_many_values():
    pytest.importorskip("botorch")
    space = ToyCells(2)
    metrics = ("quality", "latency_ms", "parameters", "macs", "cio")
    problem = Problem(space, ParetoObjective(metrics), ToyLatency(space))
    with pytest.raises(StrategyError, match="optuna_nsga3"):
        propose(small(), problem, History(()), 1)


@pytest.mark.parametrize("settings", [{"initial": 1}, {"candidates": 0}, {"samples": 0}])
def test_bad_settings(settings):
    with pytest.raises(StrategyError, match=next(iter(settings))):
        BoTorchSearch(**settings)


def test_failures_do_not_set_the_scale():
    targets, centre, deviation = _standardised(np.array([70.0, 71.0, 72.0, 73.0, 74.0, 1.0]))
    assert targets.min() > -4
    assert centre > 60
    assert deviation < 10
    assert (np.diff(targets[:5]) > 0).all()
