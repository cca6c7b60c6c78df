from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gnomon.errors import PredictorError
from gnomon.predictors import AnalyticPredictor, BayesianLinearPredictor, LatencyModel, leave_one_out
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import LatencyPredictorSuite
from gnomon.testing.latency_predictor_suite import linear_latency

SPACES = {
    "mobile_cnn": MobileCNN((1, 28, 28), 10, width=0.5, blocks=5),
    "nasbench201": NASBench201(),
    "nasbench_macro": NASBenchMacro(),
}


@cache
def made(predictor_class, space):
    return predictor_class(space)


@pytest.fixture(scope="module", params=SPACES)
def space(request):
    return SPACES[request.param]


class TestAnalytic(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self, space):
        return made(AnalyticPredictor, space)


class TestBayesianLinear(LatencyPredictorSuite):
    @pytest.fixture
    def predictor(self, space):
        return made(BayesianLinearPredictor, space)


class FirstRows(BayesianLinearPredictor):
    def references(self, n, *, seed=0, among=None):
        return self.space.sample(1, np.random.default_rng(0)).repeat(n, axis=0)


class Unseeded(BayesianLinearPredictor):
    calls = 0

    def references(self, n, *, seed=0, among=None):
        Unseeded.calls += 1
        return super().references(n, seed=seed + Unseeded.calls, among=among)


class Unchecked(BayesianLinearPredictor):
    def adapt(self, genotypes, latencies_ms):
        padded = np.nan_to_num(np.abs(latencies_ms), nan=1.0, posinf=1.0) + 1e-3
        if len(padded) < self.minimum or len(padded) != len(genotypes):
            genotypes = super().references(self.minimum)
            padded = np.arange(1.0, 1.0 + len(genotypes))
        return super().adapt(genotypes, padded)


class Forgetful(BayesianLinearPredictor):
    """Keeps something of the setting before."""

    scale = 1.0

    def adapt(self, genotypes, latencies_ms):
        model = super().adapt(genotypes, latencies_ms * self.scale)
        self.scale = 0.5 * (self.scale + 2.0)
        return model


class Answer(LatencyModel):
    """Wraps a good model and spoils its answers."""

    def __init__(self, model, spoil):
        self.model = model
        self.spoil = spoil

    def predict(self, genotypes):
        return self.spoil(*self.model.predict(genotypes))


def spoiled(spoil):
    class Spoiled(BayesianLinearPredictor):
        def adapt(self, genotypes, latencies_ms):
            return Answer(super().adapt(genotypes, latencies_ms), spoil)

    return Spoiled


class WrongMean(LatencyModel):
    def __init__(self, model):
        self.model = model

    def predict(self, genotypes):
        return self.model.predict(genotypes)

    def predict_mean(self, genotypes):
        return self.model.predict(genotypes)[0] * 1.1


class OtherMean(BayesianLinearPredictor):
    def adapt(self, genotypes, latencies_ms):
        return WrongMean(super().adapt(genotypes, latencies_ms))


BROKEN = {
    "test_references_are_distinct_canonical_and_as_many_as_asked": FirstRows,
    "test_references_depend_on_the_seed_only": Unseeded,
    "test_references_include_the_reference_network": FirstRows,
    "test_references_come_from_what_can_be_measured": FirstRows,
    "test_too_few_or_too_many_references_are_refused": FirstRows,
    "test_predictions_have_the_right_shape_and_sign": spoiled(lambda mean, std: (mean, std - std)),
    "test_the_mean_alone_is_the_same_mean": OtherMean,
    "test_adapting_is_deterministic": Forgetful,
    "test_a_prediction_does_not_depend_on_its_neighbours": spoiled(
        lambda mean, std: (mean / mean[:1] if len(mean) else mean, std)
    ),
    "test_it_ranks_unseen_architectures": spoiled(lambda mean, std: (mean.max() * 1.5 - mean, std)),
    "test_it_predicts_milliseconds": spoiled(lambda mean, std: (mean * 1e3, std)),
    "test_impossible_latencies_are_refused": Unchecked,
    "test_too_few_or_mismatched_measurements_are_refused": Unchecked,
}


@pytest.mark.parametrize("check", BROKEN)
def test_the_suite_catches_broken_predictors(check):
    space = SPACES["nasbench201"]
    predictor = BROKEN[check](space)
    suite = LatencyPredictorSuite()
    arguments = {
        "predictor": predictor,
        "latency_function": linear_latency(space),
        "queries": np.unique(space.sample(600, np.random.default_rng(11)), axis=0),
        "wrong": -1.0,
    }
    method = getattr(suite, check)
    names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        method(**{name: arguments[name] for name in names})


@pytest.mark.parametrize("settings", [{"noise": []}, {"noise": [2.0]}, {"noise": ["a"]}])
def test_bad_noise_is_refused(settings):
    with pytest.raises(PredictorError, match="noise"):
        BayesianLinearPredictor(SPACES["nasbench201"], **settings)


def test_bad_ridge_is_refused():
    with pytest.raises(PredictorError, match="ridge"):
        AnalyticPredictor(SPACES["nasbench201"], ridge=0)


def test_order_of_measurements_does_not_matter(space):
    predictor = BayesianLinearPredictor(space)
    rows = predictor.references(10)
    latencies = 1 + space.costs(rows).macs / 1e7
    queries = space.sample(100, np.random.default_rng(0))
    forward, backward = predictor.adapt(rows, latencies), predictor.adapt(rows[::-1], latencies[::-1])
    np.testing.assert_array_equal(forward.predict(queries)[0], backward.predict(queries)[0])


def test_leave_one_out_does_not_see_what_it_predicts(space):
    predictor = BayesianLinearPredictor(space)
    rows = predictor.references(10)
    latencies = 1 + space.costs(rows).macs / space.costs(rows).macs.mean()
    mean, deviation = leave_one_out(predictor, rows, latencies)
    changed = latencies.copy()
    changed[4] *= 3
    again, _ = leave_one_out(predictor, rows, changed)
    assert again[4] == mean[4]
    assert (again[:4] != mean[:4]).all()
    assert (deviation > 0).all()


def test_folded_tables_and_matrix_products_agree():
    space = SPACES["mobile_cnn"]
    predictor = BayesianLinearPredictor(space)
    rows = predictor.references(10)
    model = predictor.adapt(rows, 1 + space.costs(rows).macs / 1e6)
    assert model.basis.additive is not None
    queries = space.sample(500, np.random.default_rng(0))
    mean, deviation = model.predict(queries)
    model.basis.additive = None
    try:
        np.testing.assert_allclose(model.predict(queries)[0], mean, rtol=1e-4)
        np.testing.assert_allclose(model.predict(queries)[1], deviation, rtol=1e-4)
    finally:
        del predictor.basis
