"""Every strategy that ships keeps the contract."""

import pytest

from gnomon.search.strategies.aging_evolution import AgingEvolution
from gnomon.search.strategies.integer_program import IntegerProgram
from gnomon.search.strategies.nsga2 import NSGA2
from gnomon.search.strategies.optuna_cmaes import OptunaCmaEs
from gnomon.search.strategies.optuna_sampler import OptunaStrategy
from gnomon.search.strategies.random import RandomStrategy
from gnomon.testing import StrategySuite


class TestRandom(StrategySuite):
    guided = False

    @pytest.fixture
    def strategy_factory(self):
        return RandomStrategy


class TestAgingEvolution(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: AgingEvolution(population=12, tournament=4)


class TestIntegerProgram(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return IntegerProgram


class TestNSGA2(StrategySuite):
    guided_evaluations = 40

    @pytest.fixture
    def strategy_factory(self):
        return lambda: NSGA2(initial=10, population=100, generations=3, draws=4)


class TestTPE(StrategySuite):
    guided_evaluations = 60

    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaStrategy("TPESampler")


class TestOptunaNSGA2(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaStrategy("NSGAIISampler", {"population_size": 8}, copies=True)


class TestOptunaNSGA3(StrategySuite):
    guided_evaluations = 100

    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaStrategy("NSGAIIISampler", {"population_size": 8}, copies=True)


class TestQMC(StrategySuite):
    guided = False

    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaStrategy("QMCSampler", {"scramble": True}, keep_seed=True)


class TestCmaEs(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaCmaEs({"popsize": 6})


@pytest.mark.slow
class TestGP(StrategySuite):
    guided = False  # seconds a step: test_strategies_optuna compares its quality once
    evaluations = 14

    @pytest.fixture
    def strategy_factory(self):
        return lambda: OptunaStrategy("GPSampler", {"n_startup_trials": 6})
