"""What every quality predictor promises, as tests."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import PredictorError
from ..predictors.quality import QualityPredictor
from ..search_spaces import Genotypes, SearchSpace
from .strategy_problems import ToyCells

FloatArray = npt.NDArray[np.float64]

QUERIES = 4000
_FITTED: dict[type, QualityPredictor] = {}


class QualityPredictorSuite:
    """Subclass it, say in :meth:`make` how the predictor is made, and pytest does the rest.

    The space is :class:`~gnomon.testing.strategy_problems.ToyCells`, which knows its qualities.
    """

    min_rank_correlation: float = 0.8
    """Spearman on unseen architectures after 100 evaluations."""

    coverage: tuple[float, float] = (0.75, 0.995)
    """Share of unseen qualities that the 90 % interval may hold after 100 evaluations."""

    seconds: float = 10.0
    """For a fit to 100 evaluations and 4,000 predictions, on a busy machine."""

    def make(self, space: SearchSpace, seed: int) -> QualityPredictor:
        """The predictor under test."""
        raise NotImplementedError("a QualityPredictorSuite needs a method `make`")

    @pytest.fixture
    def space(self) -> ToyCells:
        """Where the architectures come from."""
        return ToyCells(stages=5)

    @pytest.fixture
    def known(self, space: ToyCells) -> Genotypes:
        """What was evaluated ``(100, D)``."""
        rows = np.unique(space.sample(400, np.random.default_rng(0)), axis=0)
        return np.asarray(np.random.default_rng(1).permutation(rows)[:100])

    @pytest.fixture
    def queries(self, space: ToyCells, known: Genotypes) -> Genotypes:
        """Architectures never evaluated."""
        rows = np.unique(space.sample(QUERIES, np.random.default_rng(2)), axis=0)
        return rows[~np.isin(space.algebra.hashes(rows), space.algebra.hashes(known))]

    @pytest.fixture
    def fitted(self, space: ToyCells, known: Genotypes) -> QualityPredictor:
        """After 100 evaluations, fitted once for all tests of a class."""
        if type(self) not in _FITTED:
            _FITTED[type(self)] = self.make(space, 0).fit(known, space.quality(known))
        return _FITTED[type(self)]

    def test_ranks_unseen_architectures(self, space: ToyCells, fitted: QualityPredictor, queries: Genotypes) -> None:
        mean, _ = fitted.predict(queries)
        assert mean.shape == (len(queries),)
        assert _spearman(mean, space.quality(queries)) > self.min_rank_correlation

    def test_means_and_deviations_are_in_the_unit_of_quality(
        self, space: ToyCells, fitted: QualityPredictor, queries: Genotypes
    ) -> None:
        mean, std = fitted.predict(queries)
        quality = space.quality(queries)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        assert (std > 0).all()
        assert np.abs(mean - quality).mean() < np.abs(quality - quality.mean()).mean()

    def test_the_interval_covers_about_as_often_as_it_says(
        self, space: ToyCells, fitted: QualityPredictor, queries: Genotypes
    ) -> None:
        low, high = fitted.spread(queries, np.array([[-1.645], [1.645]]))
        quality = space.quality(queries)
        covered = ((low <= quality) & (quality <= high)).mean()
        assert self.coverage[0] <= covered <= self.coverage[1]

    def test_spread_goes_through_the_prediction_and_rises(self, fitted: QualityPredictor, queries: Genotypes) -> None:
        low, middle, high = fitted.spread(queries, np.array([[-1.0], [0.0], [1.0]]))
        np.testing.assert_allclose(middle, fitted.predict(queries)[0], rtol=1e-6)
        assert (low <= middle).all()
        assert (middle <= high).all()
        assert (low < high).any()

    def test_draws_are_of_the_prediction(self, fitted: QualityPredictor, queries: Genotypes) -> None:
        rows = queries[:64]
        drawn = fitted.draw(rows, 400, np.random.default_rng(0))
        assert drawn.shape == (400, 64)
        assert np.isfinite(drawn).all()
        low, high = fitted.spread(rows, np.array([[-1.645], [1.645]]))
        within = ((drawn >= low) & (drawn <= high)).mean()
        assert 0.85 < within < 0.95
        np.testing.assert_array_equal(fitted.draw(rows, 400, np.random.default_rng(0)), drawn)

    def test_the_same_seed_gives_the_same_answers(
        self, space: ToyCells, known: Genotypes, fitted: QualityPredictor, queries: Genotypes
    ) -> None:
        again = self.make(space, 0).fit(known, space.quality(known))
        for one, other in zip(again.predict(queries), fitted.predict(queries), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_a_second_fit_forgets_the_first(
        self, space: ToyCells, known: Genotypes, fitted: QualityPredictor, queries: Genotypes
    ) -> None:
        again = self.make(space, 0).fit(known[:40], -space.quality(known[:40])).fit(known, space.quality(known))
        np.testing.assert_allclose(again.predict(queries)[0], fitted.predict(queries)[0], rtol=1e-6)

    def test_answers_do_not_depend_on_what_else_is_asked(self, fitted: QualityPredictor, queries: Genotypes) -> None:
        parts = [fitted.predict(queries[i : i + 100]) for i in range(0, 300, 100)]
        whole = fitted.predict(queries[:300])
        np.testing.assert_allclose(np.concatenate([mean for mean, _ in parts]), whole[0], rtol=1e-4)
        np.testing.assert_allclose(np.concatenate([std for _, std in parts]), whole[1], rtol=1e-2)
        assert [len(part) for part in fitted.predict(queries[:0])] == [0, 0]

    def test_it_is_fast_enough_for_an_inner_loop(self, space: ToyCells, known: Genotypes, queries: Genotypes) -> None:
        start = time.perf_counter()
        self.make(space, 0).fit(known, space.quality(known)).predict(queries)
        assert time.perf_counter() - start < self.seconds

    def test_networks_that_fail_badly_do_not_drown_the_others(
        self, space: ToyCells, known: Genotypes, queries: Genotypes
    ) -> None:
        spoilt = space.quality(known)
        spoilt[:6] = -1000.0
        mean, _ = self.make(space, 0).fit(known, spoilt).predict(queries)
        assert _spearman(mean, space.quality(queries)) > self.min_rank_correlation - 0.2

    def test_few_or_equal_evaluations_do_not_break_it(self, space: ToyCells, known: Genotypes) -> None:
        for quality in (np.full(6, 0.5), np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])):
            mean, std = self.make(space, 0).fit(known[:6], quality).predict(known[:20])
            assert np.isfinite(mean).all()
            assert np.isfinite(std).all()

    @pytest.mark.parametrize("wrong", ["two", "unequal", "nan"])
    def test_wrong_evaluations_are_refused(self, space: ToyCells, known: Genotypes, wrong: str) -> None:
        quality = {"two": np.ones(2), "unequal": np.ones(9), "nan": np.array([1.0] * 9 + [np.nan])}[wrong]
        with pytest.raises(PredictorError, match="quality"):
            self.make(space, 0).fit(known[: 2 if wrong == "two" else 10], quality)

    def test_nothing_is_predicted_before_the_first_fit(self, space: ToyCells, known: Genotypes) -> None:
        with pytest.raises(PredictorError, match="fit"):
            self.make(space, 0).predict(known)


def _spearman(one: FloatArray, other: FloatArray) -> float:
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])
