"""MnasNet's controller: the contract, the policy, and what it learns."""

import pytest

from gnomon.search.strategies.controller import Controller
from gnomon.testing import StrategySuite


class TestController(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: Controller(hidden=16, batch=5)


class TestReinforce(StrategySuite):
    @pytest.fixture
    def strategy_factory(self):
        return lambda: Controller("reinforce", hidden=16, batch=5)
