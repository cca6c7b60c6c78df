"""What every zero-cost proxy promises, as tests."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
import torch
from torch import nn

from ..errors import TaskError
from ..tasks.proxies.base import Minibatch, Proxy
from ..tasks.torch_state import seeded
from .task_suite import process_state


class ProxySuite:
    """Subclass it and give it the fixture ``proxy``."""

    @pytest.fixture
    def proxy(self) -> Proxy:
        """The proxy under test."""
        raise NotImplementedError("a ProxySuite needs a fixture `proxy`")

    def test_name_and_settings(self, proxy: Proxy) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", proxy.name)
        assert json.loads(json.dumps(proxy.settings())) == proxy.settings()
        assert proxy.batches >= 1

    def test_score_is_finite(self, proxy: Proxy) -> None:
        assert math.isfinite(_score(proxy, _network()))

    def test_same_network_same_score(self, proxy: Proxy) -> None:
        model = _network()
        assert _score(proxy, copy.deepcopy(model)) == _score(proxy, copy.deepcopy(model))

    def test_networks_differ(self, proxy: Proxy) -> None:
        scores = {_score(proxy, _network(width, depth)) for width, depth in ((4, 2), (8, 2), (8, 3), (12, 4))}
        assert len(scores) > 1, "four networks of different width and depth all score alike"

    def test_more_minibatches_than_wanted_do_not_fail(self, proxy: Proxy) -> None:
        assert math.isfinite(proxy.score(_network(), _minibatches(proxy.batches + 1)))

    def test_too_few_minibatches_are_refused(self, proxy: Proxy) -> None:
        with pytest.raises(TaskError, match="minibatches"):
            proxy.score(_network(), _minibatches(proxy.batches)[:-1])

    @pytest.mark.parametrize("weight", [0.0, math.inf, math.nan, 1e30])
    def test_broken_networks_never_score_nan(self, proxy: Proxy, weight: float) -> None:
        """All weights zero, infinite or not a number, or so large that everything overflows."""
        model = _network()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(weight)
        value = _score(proxy, model)
        assert math.isfinite(value) or value == -math.inf

    def test_networks_that_nothing_flows_through_score_least(self, proxy: Proxy) -> None:
        if not proxy.needs_signal:
            pytest.skip("does not look at what flows through a network")
        from ..search_spaces.nasbench201 import NASBench201
        from ..tasks.proxies.scorer import NetworkScorer
        from ..tasks.recorded import RecordedTask

        space = NASBench201((3, 8, 8), classes=3, channels=4, cells=1)
        scorer = NetworkScorer(space, RecordedTask("noise", (3, 8, 8), 3), [proxy], inputs="gaussian", batch_size=4)
        cells = [space.genotype({d.name: "none" for d in space.decisions}), space.named_genotype("resnet_like")]
        nothing, something = (scorer.score(space.config(cell), 0).values[0] for cell in cells)
        assert nothing == -math.inf
        assert math.isfinite(something)

    def test_scoring_leaves_the_process_as_it_was(self, proxy: Proxy) -> None:
        model, batches = _network(), _minibatches(proxy.batches)
        with seeded(0):
            proxy.score(model, batches)
        before = process_state()
        with seeded(1):
            proxy.score(_network(), batches)
        assert process_state() == before


def _network(width: int = 8, depth: int = 3, seed: int = 0) -> nn.Module:
    """Blocks of convolution, batch norm and ReLU, and a classifier; images of 3x8x8, three classes."""
    with seeded(seed):
        stages = [
            nn.Sequential(nn.Conv2d(3 if i == 0 else width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
            for i in range(depth)
        ]
        return nn.Sequential(nn.Sequential(*stages), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


def _minibatches(count: int, seed: int = 0) -> list[Minibatch]:
    generator = torch.Generator().manual_seed(seed)
    return [
        Minibatch(torch.randn(6, 3, 8, 8, generator=generator), torch.randint(0, 3, (6,), generator=generator))
        for _ in range(count)
    ]


def _score(proxy: Proxy, model: nn.Module) -> float:
    with seeded(3):
        return proxy.score(model, _minibatches(proxy.batches))
