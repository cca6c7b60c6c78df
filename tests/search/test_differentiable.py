"""``strategy=differentiable``: what is proposed, what is paid, and a whole search that is killed and goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gnomon.conf.compose import compose
from gnomon.errors import ConfigError, GnomonError, StrategyError, TaskError
from gnomon.predictors import LatencyModel
from gnomon.predictors.bayesian_linear import BayesianLinearPredictor
from gnomon.predictors.expected import SampledValue, TabledValue, expected_latency
from gnomon.schema import read_json
from gnomon.search.history import History
from gnomon.search.objectives import ParetoObjective
from gnomon.search.preparation import STRATEGY_FOLDER
from gnomon.search.problem import Problem
from gnomon.search.strategies.differentiable import RESULT_FILE, Differentiable, most_likely
from gnomon.search.study import run_search
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.tasks.price import Price
from gnomon.tasks.relaxed_training import RelaxedResult
from gnomon.testing import StrategySuite
from tests.search.doubles import study_doubles as doubles


class Trained(Differentiable):
    """As if its training had learnt nothing: all choices are equally likely."""

    def probabilities(self, problem):
        return [np.full(int(k), 1.0 / int(k)) for k in problem.space.algebra.cardinalities]


class TestConformance(StrategySuite):
    guided = False
    evaluations = 20

    @pytest.fixture
    def strategy_factory(self):
        return Trained


class ByMacs(LatencyModel):
    """1 ms for a million multiply-accumulates."""

    def __init__(self, space):
        self.space = space

    def predict(self, genotypes):
        mean = self.space.costs(genotypes).macs / 1e6
        return mean, 0.01 * mean


@pytest.fixture
def space():
    return NASBench201((1, 8, 8), classes=10, channels=4, cells=1)


def problem_of(space, limit_ms=None):
    return Problem(space, ParetoObjective(latency_ms=limit_ms), ByMacs(space), limit_ms)


# ---- What is paid ------------------------------------------------------------------------------


def corner(space, row):
    return [
        torch.nn.functional.one_hot(torch.tensor(int(gene)), int(k)).float()
        for gene, k in zip(row, space.algebra.cardinalities, strict=True)
    ]


@pytest.mark.parametrize("kind", ["listed", "sampled", "tables"])
def test_expected_latency_is_the_prediction_at_the_corners(space, kind):
    if kind == "tables":
        space = MobileCNN((1, 16, 16), classes=3, width=0.25, blocks=3)
        rows = space.sample(12, np.random.default_rng(3))
        model = BayesianLinearPredictor(space).adapt(rows, space.costs(rows).macs / 1e6)
        expected = expected_latency(space, model)
        assert isinstance(expected, TabledValue)
    else:
        model = ByMacs(space)
        expected = expected_latency(space, model) if kind == "listed" else SampledValue(space, model.predict_mean, 2)
    rows = space.sample(5, np.random.default_rng(0))
    own = [float(expected.expected(corner(space, row), np.random.default_rng(0))) for row in rows]
    np.testing.assert_allclose(own, model.predict_mean(rows), rtol=1e-4)


def test_expected_latency_is_the_mean_of_what_is_drawn_and_so_is_its_gradient(space):
    """The sampled estimate agrees with the exact one, in value and in every derivative."""
    model = ByMacs(space)
    rng = np.random.default_rng(0)
    raw = [rng.dirichlet(np.ones(int(k))).astype(np.float32) for k in space.algebra.cardinalities]
    results = []
    for expected in (expected_latency(space, model), SampledValue(space, model.predict_mean, 20_000)):
        probabilities = [torch.tensor(p, requires_grad=True) for p in raw]
        value = expected.expected(probabilities, np.random.default_rng(1))
        value.backward()
        # Along the simplex: a constant in a decision's gradient is none.
        slopes = [p.grad - p.grad.mean() for p in probabilities]
        results.append((value.item(), torch.cat(slopes)))
    assert results[0][0] == pytest.approx(results[1][0], rel=0.02)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=0.05, atol=0.01 * results[0][0])


def test_a_hinge_pays_above_the_limit_only_and_adapts():
    price = Price(lambda p, rng: p[0][1] * 4.0, "hinge", 2.0, 0.5, rate=0.1)
    paid, value = price.loss([torch.tensor([0.75, 0.25])], np.random.default_rng(0))
    assert (float(paid), value) == (0.0, 1.0)
    price.update(value)
    assert price.multiplier == pytest.approx(0.45)
    p = torch.tensor([0.0, 1.0], requires_grad=True)
    paid, value = price.loss([p], np.random.default_rng(0))
    paid.backward()
    assert paid.item() == pytest.approx(0.45)
    assert p.grad is not None
    assert p.grad[1] == pytest.approx(0.9)
    price.update(value)
    assert price.multiplier == pytest.approx(0.55)
    for _ in range(100):
        price.update(0.0)
    assert price.multiplier == 0.0


# ---- Training and proposing --------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from gnomon.search.instantiate import instantiate

    return instantiate(compose("search", ["task=digits"]).task, "task")


def trained(folder, problem, task, **settings):
    strategy = Differentiable(**{"epochs": 2, "warmup_epochs": 0, "lr": 0.1, **settings})
    strategy.run(problem, task, folder, seed=0)
    return strategy


@pytest.mark.parametrize("relaxation", ["sampled", "softmax", "gumbel", "straight_through", "two_paths"])
@pytest.mark.parametrize("level", ["single", "bilevel"])
def test_a_high_price_finds_the_fastest(tmp_path, space, digits, relaxation, level):
    problem = problem_of(space)
    strategy = trained(tmp_path, problem, digits, relaxation=relaxation, level=level, weight=100.0)
    found = most_likely(space, strategy.probabilities(problem))
    assert space.costs(found).macs[0] == space.costs(np.zeros((1, 6), dtype=np.int8)).macs[0]
    result = RelaxedResult.from_dict(
        {"schema": RelaxedResult.SCHEMA, **read_json(tmp_path / RESULT_FILE, RelaxedResult.SCHEMA)}
    )
    assert result.values[1] < result.values[0]


def test_probabilities_learn_from_the_task(tmp_path, space, digits):
    """Without a price, ``none`` on all edges is what the task's loss is against."""
    problem = problem_of(space)
    strategy = trained(tmp_path, problem, digits, relaxation="softmax", level="bilevel", weight=0.0, epochs=4)
    probabilities = strategy.probabilities(problem)
    assert np.mean([p[0] for p in probabilities]) < 0.2


def test_other_metrics_are_paid_for_alike(tmp_path, digits):
    space = MobileCNN((1, 8, 8), classes=10, width=0.25, blocks=1)
    problem = problem_of(space)
    strategy = trained(tmp_path, problem, digits, metric="parameters", weight=50.0, level="single")
    found = most_likely(space, strategy.probabilities(problem))
    rows = space.enumerate()
    assert space.costs(found).parameters[0] <= np.quantile(space.costs(rows).parameters, 0.2)


def test_a_training_that_was_killed_ends_like_an_undisturbed_one(tmp_path, space, digits):
    problem = problem_of(space, limit_ms=0.1)
    settings = {"price": "hinge", "weight": 0.5, "epochs": 3, "warmup_epochs": 1}
    whole = trained(tmp_path / "whole", problem, digits, **settings)

    def kill(epochs, metric):
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Differentiable(**{**settings, "lr": 0.1}).run(problem, digits, tmp_path / "killed", seed=0, progress=kill)
    assert not (tmp_path / "killed" / RESULT_FILE).exists()
    again = trained(tmp_path / "killed", problem, digits, **settings)
    for own, other in zip(whole.probabilities(problem), again.probabilities(problem), strict=True):
        np.testing.assert_array_equal(own, other)


def test_a_finished_training_is_taken_as_it_is(tmp_path, space, digits):
    problem = problem_of(space)
    first = trained(tmp_path, problem, digits)
    second = trained(tmp_path, problem, digits)
    np.testing.assert_array_equal(first.probabilities(problem)[0], second.probabilities(problem)[0])
    with pytest.raises(TaskError, match="another"):
        trained(tmp_path, problem, digits, weight=0.3)


def test_the_most_likely_network_comes_first(space):
    class Sure(Differentiable):
        def probabilities(self, problem):
            return [np.array([0.1, 0.1, 0.2, 0.5, 0.1])] * 6

    problem = problem_of(space)
    rows = Sure().propose(problem, History(()), 4, np.random.default_rng(0)).genotypes
    np.testing.assert_array_equal(rows[0], [3] * 6)
    limited = problem_of(space, limit_ms=0.9 * float(ByMacs(space).predict_mean(rows[:1])[0]))
    rows = Sure().propose(limited, History(()), 4, np.random.default_rng(0)).genotypes
    assert (limited.violation(rows) <= 0).all(), "feasible ones first"


def test_proposing_needs_a_training(space):
    with pytest.raises(StrategyError, match="trained"):
        Differentiable().propose(problem_of(space), History(()), 1, np.random.default_rng(0))


def test_a_hinge_needs_a_limit(tmp_path, space, digits):
    with pytest.raises(StrategyError, match="limit"):
        trained(tmp_path, problem_of(space), digits, price="hinge")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("relaxation", "hard"),
        ("level", "tri"),
        ("price", "free"),
        ("metric", "quality"),
        ("warmup_epochs", 60),
        ("temperature", (1.0, 0.0)),
        ("lr", 0.0),
        ("weight", -1.0),
    ],
)
def test_wrong_settings(field, value):
    with pytest.raises((ConfigError, StrategyError), match=field):
        Differentiable(**{field: value})


# ---- A whole search ----------------------------------------------------------------------------

OVERRIDES = [
    "experiment=quick",
    "strategy=differentiable",
    "strategy.epochs=2",
    "strategy.warmup_epochs=1",
    "quality.epochs=1",
    "space.blocks=1",
    "space.width=0.25",
    "predictor=macs",
    "study.references=4",
    "study.refinements=0",
    "study.evaluations=3",
    "study.batch=2",
    "study.name=soft",
    "finalise.enabled=false",
]


class KilledAfterAnEpoch(doubles.Silence):
    def preparation(self, spent: float, metric: float) -> None:
        raise KeyboardInterrupt


def search(folder: Path, display: doubles.Silence):
    return run_search(compose("search", [*OVERRIDES, f"study.dir={folder}"]), display)[0]


def test_a_whole_search_goes_on_after_a_kill(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, KilledAfterAnEpoch())
    folder = tmp_path / "soft" / STRATEGY_FOLDER
    assert not (folder / RESULT_FILE).exists()
    summary = search(tmp_path, doubles.Silence())
    assert summary.finished
    assert len(summary.trials) == 3
    assert summary.spend["preparing_s"] > 0
    assert (folder / RESULT_FILE).exists()
    assert not list(folder.glob("*.safetensors")), "checkpoints are cleared away"
    again = search(tmp_path, doubles.Silence())
    assert [t.key for t in again.trials] == [t.key for t in summary.trials]


def test_a_space_without_mixed_operations_is_refused(tmp_path):
    words = [*OVERRIDES, "space=fbnet", f"study.dir={tmp_path}"]
    words = [word for word in words if word not in ("space.blocks=1", "space.width=0.25")]
    with pytest.raises(GnomonError, match="mixed operations"):
        run_search(compose("search", words), doubles.Silence())
