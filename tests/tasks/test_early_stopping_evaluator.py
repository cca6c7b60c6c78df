import numpy as np
import pytest

from gnomon.errors import ConfigError
from gnomon.predictors.curves import LeastSquares
from gnomon.records import Evaluation
from gnomon.search_spaces import Costs
from gnomon.tasks.base import Past
from gnomon.tasks.early_stopping import EarlyStoppedTrainEvaluator
from gnomon.tasks.train_evaluator import TrainEvaluator
from gnomon.testing import EvaluatorSuite
from gnomon.testing.curve_regressor_suite import saturating_curves
from gnomon.testing.task_suite import without_time

EPOCHS = 4
ROW = np.array([1, 1], dtype=np.int8)


@pytest.fixture
def space(make_tiny_space):
    class CostedSpace(make_tiny_space):
        def costs(self, genotypes):
            total = 1.0 + genotypes.sum(axis=1)
            return Costs(total, total, total, total)

    return CostedSpace()


@pytest.fixture
def make_evaluator(space, make_task):
    def make(**changes):
        settings = {"epochs": EPOCHS, "burn_in": 8, "regressor": LeastSquares(), "audit": 0.0}
        return EarlyStoppedTrainEvaluator(space, make_task(), **{**settings, **changes})

    return make


def past(n=20, scale=1.0, seed=0):
    """Whole trainings, of which none reaches more than ``scale``."""
    rng = np.random.default_rng(seed)
    curves = scale * saturating_curves(n, EPOCHS, seed)
    rows = rng.integers(0, 2, (n, 2)).astype(np.int8)
    return [
        Past(row, Evaluation(float(c[-1]), {"accuracy": float(c[-1])}, EPOCHS, curve=tuple(map(float, c))))
        for row, c in zip(rows, curves, strict=True)
    ]


class TestConformance(EvaluatorSuite):
    @pytest.fixture
    def evaluator(self, make_evaluator):
        return make_evaluator(epochs=2)

    @pytest.fixture
    def architecture(self, space):
        return space.architecture(ROW)


def test_without_a_past_it_is_the_train_evaluator(space, make_task, make_evaluator):
    architecture = space.architecture(ROW)
    expected = TrainEvaluator(space, make_task(), epochs=EPOCHS).evaluate(architecture, seed=1)
    assert without_time(make_evaluator().evaluate(architecture, seed=1)) == without_time(expected)


def test_a_training_that_cannot_win_is_stopped_and_its_quality_is_a_prediction(space, make_evaluator):
    evaluator, architecture = make_evaluator(), space.architecture(ROW)
    whole = evaluator.evaluate(architecture, seed=1)
    evaluator.observe(past(), np.full(20, 5.0))
    found = evaluator.evaluate(architecture, seed=1)
    assert found.stopped_at == found.budget == 1.0
    assert found.curve == whole.curve[:1]
    assert found.metrics["accuracy"] == whole.curve[0]
    assert found.quality == found.metrics["predicted"] < found.metrics["to_beat"] == 5.0
    assert found.quality_std > 0
    assert Evaluation.from_json(found.to_json()) == found


def test_a_training_that_may_win_goes_on(space, make_evaluator):
    evaluator, architecture = make_evaluator(), space.architecture(ROW)
    whole = evaluator.evaluate(architecture, seed=1)
    evaluator.observe(past(), np.full(20, -np.inf))
    assert without_time(evaluator.evaluate(architecture, seed=1)) == without_time(whole)


def test_the_rank_counts_rivals(space, make_evaluator):
    to_beat = np.array([5.0, 5.0, *[-np.inf] * 18])
    for rank, stops in ((1, True), (2, True), (3, False)):
        evaluator = make_evaluator(rank=rank)
        evaluator.observe(past(), to_beat)
        assert (evaluator.evaluate(space.architecture(ROW), seed=1).stopped_at is not None) == stops


def test_only_whole_trainings_teach(space, make_evaluator):
    evaluator = make_evaluator()
    stopped = [Past(p.genotype, Evaluation(0.1, {}, 2.0, curve=(0.1, 0.1), stopped_at=2.0)) for p in past(30)]
    evaluator.observe(stopped + past(7), np.full(37, 5.0))
    assert evaluator.evaluate(space.architecture(ROW), seed=1).stopped_at is None
    evaluator.observe(stopped + past(8), np.full(38, 5.0))
    assert evaluator.evaluate(space.architecture(ROW), seed=1).stopped_at is not None


def test_an_audited_training_runs_to_its_end_and_says_what_was_expected(space, make_evaluator):
    evaluator = make_evaluator(audit=0.999)
    whole = make_evaluator().evaluate(space.architecture(ROW), seed=1)
    evaluator.observe(past(), np.full(20, 5.0))
    found = evaluator.evaluate(space.architecture(ROW), seed=1)
    assert (found.quality, found.curve, found.stopped_at) == (whole.quality, whole.curve, None)
    assert found.metrics["predicted"] < found.metrics["to_beat"] == 5.0


def test_another_process_decides_the_same(space, make_evaluator):
    lasting, known = make_evaluator(), past(30)
    for n in (10, 20, 30):
        lasting.observe(known[:n], np.full(n, 0.8))
        lasting.evaluate(space.architecture(ROW), seed=n)
    fresh = make_evaluator()
    fresh.observe(known, np.full(30, 0.8))
    first, second = (e.evaluate(space.architecture(ROW), seed=30) for e in (lasting, fresh))
    assert without_time(first) == without_time(second)


def test_settings_are_part_of_what_it_is(make_evaluator):
    assert make_evaluator().identity() != make_evaluator(confidence=0.9).identity()
    assert make_evaluator().identity()["rule"]["regressor"]["regressor"] == "least_squares"
    assert make_evaluator().observes


def test_mistakes_are_clear(make_evaluator):
    for changes in ({"epochs": 1}, {"audit": 1.0}, {"burn_in": 2}, {"confidence": 0.2}, {"regressor": 3}):
        with pytest.raises(ConfigError, match=f"quality.{next(iter(changes))}"):
            make_evaluator(**changes)
