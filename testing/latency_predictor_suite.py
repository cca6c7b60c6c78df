"""What every latency predictor promises, as tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import PredictorError
from ..predictors import LatencyModel, LatencyPredictor, Provenance, SavableLatencyModel, load_model, save_model
from ..search_spaces import Genotypes, SearchSpace

FloatArray = npt.NDArray[np.float64]
LatencyFunction = Callable[[Genotypes], FloatArray]


def linear_latency(space: SearchSpace) -> LatencyFunction:
    """A device whose latency is linear in MACs, CIO and parameters, within 1.5 %: the error of an
    architecture is always the same."""
    sample = space.costs(space.sample(1000, np.random.default_rng(0)))
    mean_macs, mean_cio, mean_parameters = sample.macs.mean(), sample.cio.mean(), sample.parameters.mean()

    def latency(genotypes: Genotypes) -> FloatArray:
        costs = space.costs(genotypes)
        work = 1.5 * costs.macs / mean_macs + 0.7 * costs.cio / mean_cio + 0.2 * costs.parameters / mean_parameters
        error = (space.algebra.hashes(genotypes) >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
        return np.asarray((0.6 + work) * (1 + 0.03 * error))

    return latency


class LatencyPredictorSuite:
    """Subclass it, give it a fixture ``predictor``, and pytest does the rest.

    Optional fixture: ``latency_function``, what the device of these tests does: by default a
    latency linear in MACs, CIO and parameters (:func:`linear_latency`).
    """

    n_references: int = 10
    """Measurements to adapt from."""

    min_rank_correlation: float = 0.9
    """Spearman on unseen architectures that so many measurements must reach."""

    min_coverage: float = 0.7
    """Share of unseen latencies that the 90 % interval must hold."""

    @pytest.fixture
    def predictor(self) -> LatencyPredictor:
        """The predictor under test."""
        raise NotImplementedError("a LatencyPredictorSuite needs a fixture `predictor`")

    @pytest.fixture
    def latency_function(self, predictor: LatencyPredictor) -> LatencyFunction:
        """Canonical rows ``(N, D)`` to latencies in ms ``(N,)``, the same for the same rows."""
        return linear_latency(predictor.space)

    @pytest.fixture
    def queries(self, predictor: LatencyPredictor) -> Genotypes:
        """Distinct architectures to predict."""
        return np.unique(predictor.space.sample(600, np.random.default_rng(11)), axis=0)

    def test_references_are_distinct_canonical_and_as_many_as_asked(self, predictor: LatencyPredictor) -> None:
        rows = predictor.references(self.n_references)
        assert rows.shape == (self.n_references, len(predictor.space.decisions))
        assert len(np.unique(rows, axis=0)) == len(rows)
        np.testing.assert_array_equal(predictor.space.canonical(predictor.space.algebra.validate(rows)), rows)

    def test_references_depend_on_the_seed_only(self, predictor: LatencyPredictor) -> None:
        first = predictor.references(self.n_references, seed=3)
        np.testing.assert_array_equal(predictor.references(self.n_references, seed=3), first)

    def test_references_include_the_reference_network(self, predictor: LatencyPredictor) -> None:
        for name in list(predictor.space.named)[:1]:
            reference = predictor.space.named_genotype(name)
            assert (predictor.references(self.n_references) == reference).all(axis=1).any()

    def test_references_come_from_what_can_be_measured(self, predictor: LatencyPredictor, queries: Genotypes) -> None:
        rows = predictor.references(self.n_references, among=queries)
        allowed = set(predictor.space.keys(queries))
        assert allowed.issuperset(predictor.space.keys(rows))
        assert len(np.unique(rows, axis=0)) == self.n_references

    def test_too_few_or_too_many_references_are_refused(self, predictor: LatencyPredictor, queries: Genotypes) -> None:
        with pytest.raises(PredictorError):
            predictor.references(0)
        with pytest.raises(PredictorError):
            predictor.references(8, among=queries[:5])

    def test_predictions_have_the_right_shape_and_sign(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        model = self._adapted(predictor, latency_function)
        for rows in (queries, queries[:1], queries[:0]):
            mean, deviation = model.predict(rows)
            assert mean.shape == deviation.shape == (len(rows),)
            assert np.isfinite(mean).all()
            assert (mean > 0).all()
            assert np.isfinite(deviation).all()
            assert (deviation > 0).all()

    def test_the_mean_alone_is_the_same_mean(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        model = self._adapted(predictor, latency_function)
        np.testing.assert_allclose(model.predict_mean(queries), model.predict(queries)[0], rtol=1e-5)

    def test_adapting_is_deterministic(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        rows = predictor.references(self.n_references)
        latencies = latency_function(rows)
        first = predictor.adapt(rows, latencies).predict(queries)
        predictor.adapt(rows[::-1], latencies * 2)
        again = predictor.adapt(rows.copy(), latencies.copy()).predict(queries)
        np.testing.assert_array_equal(again[0], first[0])
        np.testing.assert_array_equal(again[1], first[1])

    def test_a_prediction_does_not_depend_on_its_neighbours(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        model = self._adapted(predictor, latency_function)
        mean, deviation = model.predict(queries)
        order = np.random.default_rng(0).permutation(len(queries))
        for rows in (order, order[:37]):
            shuffled = model.predict(queries[rows])
            np.testing.assert_allclose(shuffled[0], mean[rows], rtol=1e-5)
            np.testing.assert_allclose(shuffled[1], deviation[rows], rtol=1e-3)

    def test_it_ranks_unseen_architectures(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        mean, _ = self._adapted(predictor, latency_function).predict(queries)
        ranks = [np.argsort(np.argsort(values)) for values in (mean, latency_function(queries))]
        assert np.corrcoef(ranks[0], ranks[1])[0, 1] >= self.min_rank_correlation

    def test_it_predicts_milliseconds(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes
    ) -> None:
        rows = predictor.references(self.n_references)
        for scale in (1e-3, 1e3):
            mean, deviation = predictor.adapt(rows, scale * latency_function(rows)).predict(queries)
            measured = scale * latency_function(queries)
            assert abs(np.median(mean / measured) - 1) < 0.15
            assert (np.abs(mean - measured) <= 1.645 * deviation).mean() >= self.min_coverage
            assert np.median(deviation) < measured.mean()

    @pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
    def test_impossible_latencies_are_refused(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, wrong: float
    ) -> None:
        rows = predictor.references(self.n_references)
        latencies = latency_function(rows)
        latencies[2] = wrong
        with pytest.raises(PredictorError):
            predictor.adapt(rows, latencies)

    def test_too_few_or_mismatched_measurements_are_refused(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction
    ) -> None:
        rows = predictor.references(self.n_references)
        latencies = latency_function(rows)
        for genotypes, values in ((rows[:1], latencies[:1]), (rows[:0], latencies[:0]), (rows, latencies[:-1])):
            with pytest.raises(PredictorError):
                predictor.adapt(genotypes, values)

    def test_a_saved_model_predicts_the_same(
        self, predictor: LatencyPredictor, latency_function: LatencyFunction, queries: Genotypes, tmp_path: Path
    ) -> None:
        rows = predictor.references(self.n_references)
        latencies = latency_function(rows)
        model = predictor.adapt(rows, latencies)
        if not isinstance(model, SavableLatencyModel):
            pytest.skip("this predictor's models are not saved")
        provenance = Provenance("setting", "predictor", tuple(predictor.space.keys(rows)), tuple(latencies.tolist()))
        save_model(tmp_path, model, provenance)
        loaded, found = load_model(tmp_path)
        assert found == provenance
        for before, after in zip(model.predict(queries), loaded.predict(queries), strict=True):
            np.testing.assert_array_equal(after, before)

    def _adapted(self, predictor: LatencyPredictor, latency_function: LatencyFunction) -> LatencyModel:
        rows = predictor.references(self.n_references)
        return predictor.adapt(rows, latency_function(rows))
