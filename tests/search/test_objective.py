"""Objectives, the latency limit, and their configs."""

from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from omegaconf import OmegaConf

from gnomon.errors import ConfigError
from gnomon.search.instantiate import instantiate
from gnomon.search.objective import LatencyLimit
from gnomon.search.objectives import MnasNetReward, ParetoObjective

CONF = Path(__file__).resolve().parents[2] / "conf" / "objective"
COLUMNS = {"quality": np.array([0.9, 0.8]), "latency_ms": np.array([4.0, 1.0]), "macs": np.array([7.0, 3.0])}


def test_pareto_values_and_losses():
    objective = ParetoObjective(("quality", "latency_ms", "macs"))
    assert objective.directions == ("maximize", "minimize", "minimize")
    assert objective.values(COLUMNS, None).tolist() == [[0.9, 4.0, 7.0], [0.8, 1.0, 3.0]]
    assert objective.losses(COLUMNS, None).tolist() == [[-0.9, 4.0, 7.0], [-0.8, 1.0, 3.0]]


@pytest.mark.parametrize("metrics", [["speed"], [], ["quality", "quality"]])
def test_metrics_must_be_known_and_distinct(metrics):
    with pytest.raises(ConfigError, match=r"objective\.metrics"):
        ParetoObjective(metrics)


def test_soft_reward_at_twice_the_target():
    reward = MnasNetReward(latency_ms=2.0).values(COLUMNS, 2.0)[:, 0]
    assert reward == pytest.approx([0.9 * 2**-0.07, 0.8 * 0.5**-0.07])


def test_hard_reward_ignores_latency_within_the_target():
    reward = MnasNetReward(alpha=0.0, beta=-1.0, latency_ms=2.0).values(COLUMNS, 2.0)[:, 0]
    assert reward == pytest.approx([0.45, 0.8])


def test_reward_needs_a_target():
    with pytest.raises(ConfigError, match="target"):
        MnasNetReward()


@pytest.mark.parametrize(("given", "share"), [("60%", 0.6), (" 60 % ", 0.6), ("0.6", 0.6), (1.5, 1.5), ("150%", 1.5)])
def test_shares(given, share):
    assert LatencyLimit(latency=given).share == pytest.approx(share)
    assert LatencyLimit(latency=given).resolve(10.0) == pytest.approx(10 * share)


@pytest.mark.parametrize("given", ["fast", "-5%", "0", "nan", "%", "inf"])
def test_bad_shares(given):
    with pytest.raises(ConfigError, match=r"objective\.latency="):
        LatencyLimit(latency=given)


@pytest.mark.parametrize("given", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_limits(given):
    with pytest.raises(ConfigError, match=r"objective\.latency_ms"):
        LatencyLimit(latency_ms=given)


@pytest.mark.parametrize("given", [0.4, 1.0, 90])
def test_bad_confidence(given):
    with pytest.raises(ConfigError, match=r"objective\.confidence"):
        LatencyLimit(latency_ms=1.0, confidence=given)


def test_absolute_and_relative_limit_exclude_each_other():
    with pytest.raises(ConfigError, match="not both"):
        LatencyLimit(latency_ms=1.0, latency="60%")


def test_relative_limit_needs_a_reference():
    with pytest.raises(ConfigError, match="reference network"):
        LatencyLimit(latency="60%").resolve(None)


def test_violation_holds_with_the_stated_probability():
    objective = ParetoObjective(latency_ms=10.0, confidence=0.9)
    mean, std = np.array([8.0, 9.9]), np.array([1.0, 1.0])
    violation = objective.violation(mean, std, 10.0)
    probability = np.array([NormalDist(m, s).cdf(10.0) for m, s in zip(mean, std, strict=True)])
    assert np.array_equal(violation <= 0, probability >= 0.9)
    assert objective.violation(mean, std, None).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("name", ["pareto", "mnasnet_soft", "mnasnet_hard"])
def test_configs(name):
    node = OmegaConf.load(CONF / f"{name}.yaml")
    objective = instantiate(OmegaConf.merge(node, {"latency_ms": 2.0}), "objective")
    assert objective.limit.latency_ms == 2.0
    if name != "pareto":
        assert (objective.alpha, objective.beta) == {"mnasnet_soft": (-0.07, -0.07), "mnasnet_hard": (0.0, -1.0)}[name]
