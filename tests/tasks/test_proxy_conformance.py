import numpy as np
import pytest

from gnomon.tasks.proxies.catalog import all_proxies
from gnomon.tasks.proxies.evaluator import ProxyEvaluator
from gnomon.tasks.proxies.relu_codes import NWOT
from gnomon.tasks.proxies.sizes import MACs
from gnomon.testing import EvaluatorSuite, ProxySuite


class TestEveryProxy(ProxySuite):
    @pytest.fixture(params=[proxy.name for proxy in all_proxies()])
    def proxy(self, request):
        return next(proxy for proxy in all_proxies() if proxy.name == request.param)


class TestProxyEvaluator(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, tiny_space, make_task, tmp_path):
        evaluator = ProxyEvaluator(tiny_space, make_task(), [NWOT(), MACs()], batch_size=8, reference=4)
        evaluator.prepare(tmp_path, seed=0)
        return evaluator

    @pytest.fixture
    def architecture(self, tiny_space):
        return tiny_space.architecture(np.array([1, 1], dtype=np.int8))

    @pytest.fixture
    def impossible_architecture(self, tiny_space, evaluator, monkeypatch):
        def build(config):
            raise RuntimeError("out of memory")

        monkeypatch.setattr(tiny_space, "build", build)
        return tiny_space.architecture(np.array([0, 1], dtype=np.int8))
