"""What evaluators that learn from earlier evaluations are told, and a search whose trainings are stopped early."""

import numpy as np
import pytest

from gnomon.records import Evaluation
from gnomon.search import Problem
from gnomon.search.early_stopping_notes import early_stopping_notes
from gnomon.search.history import Trial
from gnomon.search.ledger import Ledger
from gnomon.search.loop import run_worker
from gnomon.search.objectives import MnasNetReward, ParetoObjective
from gnomon.search.past import quality_to_beat


def trial(problem, number, row, quality, **changes):
    row = np.array(row, dtype=np.int8)
    losses = tuple(problem.losses(row[None], np.array([quality]))[0])
    violation = float(problem.violation(row[None])[0])
    return Trial(number, row, "complete", quality, losses, violation, **changes)


FAST, MIDDLE, SLOW = ([n, 0, 0, 0, 0, 0] for n in (0, 1, 2))


def of(row):
    return np.array(row, dtype=np.int8)


class TestQualityToBeat:
    @pytest.fixture
    def make(self, problem):
        def make(objective, limit_ms=None):
            return Problem(problem.space, objective, problem.latency, limit_ms)

        return make

    def test_on_a_front_only_what_is_no_slower_is_a_rival(self, make):
        pareto = make(ParetoObjective())
        trials = tuple(trial(pareto, i, row, q) for i, (row, q) in enumerate([(FAST, 0.5), (SLOW, 0.9)]))
        np.testing.assert_allclose(quality_to_beat(pareto, trials, of(MIDDLE)), [0.5, -np.inf])
        np.testing.assert_allclose(quality_to_beat(pareto, trials, of(FAST)), [0.5, -np.inf])

    def test_with_one_objective_all_are_rivals(self, make):
        single = make(ParetoObjective(("quality",)))
        trials = tuple(trial(single, i, row, q) for i, (row, q) in enumerate([(FAST, 0.5), (SLOW, 0.9)]))
        np.testing.assert_allclose(quality_to_beat(single, trials, of(MIDDLE)), [0.5, 0.9])

    def test_a_reward_asks_more_of_the_slow(self, make):
        reward = make(MnasNetReward(latency_ms=2.0), 2.0)
        trials = (trial(reward, 0, FAST, 0.5),)
        needed = quality_to_beat(reward, trials, of(SLOW))
        latency = reward.latency.predict_mean(np.array([FAST, SLOW], dtype=np.int8))
        np.testing.assert_allclose(needed, 0.5 * (latency[0] / latency[1]) ** -0.07, rtol=1e-6)

    def test_what_breaks_the_limit_is_no_rival_of_what_keeps_it(self, make):
        limited = make(ParetoObjective(("quality",), latency_ms=2.5), 2.5)
        trials = (trial(limited, 0, SLOW, 0.9), trial(limited, 1, FAST, 0.5))
        np.testing.assert_allclose(quality_to_beat(limited, trials, of(MIDDLE)), [-np.inf, 0.5])
        np.testing.assert_allclose(quality_to_beat(limited, trials, of([2, 1, 0, 0, 0, 0])), [0.9, 0.5])

    def test_predicted_ends_are_no_rivals(self, make):
        pareto = make(ParetoObjective())
        trials = (trial(pareto, 0, FAST, 0.9, stopped_at=2.0), trial(pareto, 1, FAST, 0.4))
        np.testing.assert_allclose(quality_to_beat(pareto, trials, of(MIDDLE)), [-np.inf, 0.4])
        assert quality_to_beat(pareto, (), of(MIDDLE)).shape == (0,)


class FakeTrial:
    def __init__(self, evaluation, **more):
        self.user_attrs = {"evaluation": evaluation.to_dict(), **more}


def test_notes_say_what_was_saved_and_how_often_it_was_wrong():
    whole, stopped = Evaluation(0.8, budget=10.0), Evaluation(0.3, budget=2.0, stopped_at=2.0)
    assert early_stopping_notes([FakeTrial(whole)]) == ()
    saved, unknown = early_stopping_notes([FakeTrial(whole), FakeTrial(stopped), FakeTrial(stopped, duplicate_of=1)])
    assert saved.startswith("1 of 2 trainings were stopped early, after 2 of 10 epochs on average, which saved 40%")
    assert "not known" in unknown
    wrong = Evaluation(0.9, {"to_beat": 0.8}, budget=10.0)
    _, rate = early_stopping_notes([FakeTrial(whole), FakeTrial(stopped), FakeTrial(wrong)])
    assert rate.startswith("False stops: 1 of 1,")


class Observing:
    """Quality depends on everything that was observed."""

    has_weights, observes = False, True

    def __init__(self):
        self.seen = []

    def observe(self, past, to_beat):
        self.seen.append([p.evaluation.quality for p in past])
        assert len(to_beat) == len(past)

    def evaluate(self, architecture, *, seed, progress=None):
        if len(self.seen) == 9:
            raise KeyboardInterrupt
        return Evaluation(sum(map(int, architecture.key.split("."))) + 0.1 * sum(self.seen[-1]) % 1, seed=seed)


def test_evaluations_that_depend_on_those_before_are_the_same_after_an_interruption(open_ledger, problem, components):
    def qualities(ledger):
        return [t.quality for t in ledger.history().evaluated]

    components.evaluator = Observing()
    ledger = open_ledger()
    with pytest.raises(KeyboardInterrupt):
        run_worker(ledger, problem, components)
    before = qualities(ledger)
    assert len(before) == 8
    assert components.evaluator.seen[-1] == before
    components.evaluator = Observing()
    components.evaluator.seen = [[]] * 10  # beyond the interruption
    run_worker(open_ledger(), problem, components)
    assert components.evaluator.seen[10] == before

    undisturbed = Ledger("sqlite://", "undisturbed", problem.space)
    undisturbed.create(problem.objective, {"space": problem.space.spec()})
    components.evaluator = Observing()
    components.evaluator.seen = [[]] * 10
    run_worker(undisturbed, problem, components)
    assert qualities(undisturbed) == qualities(open_ledger())
