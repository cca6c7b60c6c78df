"""MnasNet's controller: the contract, the policy, and what it learns."""

import numpy as np
import pytest
import torch

from gnomon.errors import StrategyError
from gnomon.search import History, Problem
from gnomon.search.objectives import MnasNetReward, ParetoObjective
from gnomon.search.strategies._policy import Experience, LearningSettings, PolicyLearner, RecurrentPolicy
from gnomon.search.strategies.controller import LOG_PROBABILITIES, SAMPLED, Controller, _rewards
from gnomon.testing import StrategySuite, simulate
from gnomon.testing.strategy_problems import ToyCells, ToyLatency, pareto_problem, scalar_problem
from gnomon.testing.strategy_suite import propose, run


def small(algorithm="ppo"):
    return Controller(algorithm, hidden=8, batch=5, epochs=2)


class TestController(StrategySuite):
    evaluations = 20
    guided = False  # rebuilding it at every step of a long search takes minutes: compared below, lived through

    @pytest.fixture
    def strategy_factory(self):
        return small


class TestReinforce(StrategySuite):
    evaluations = 20
    guided = False

    @pytest.fixture
    def strategy_factory(self):
        return lambda: small("reinforce")


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
def test_better_than_random(algorithm):
    problem = scalar_problem()

    def best(make):
        searches = [
            simulate(make, problem, problem.space.quality, evaluations=120, batch=10, seed=seed, rebuild=False)
            for seed in range(3)
        ]
        return np.mean([-search.history.losses.min() for search in searches])

    from gnomon.search.strategies.random import RandomStrategy

    assert best(lambda: Controller(algorithm, hidden=16)) > best(RandomStrategy)


class TestPolicy:
    @pytest.fixture
    def policy(self):
        return RecurrentPolicy(ToyCells(2), 8)

    def test_inactive_decisions_are_skipped(self, policy):
        rows, log_probabilities = policy.sample(200, np.random.default_rng(0))
        active = ToyCells(2).algebra.active(rows)
        assert not active.all()
        assert (log_probabilities[~active] == 0).all()
        assert (rows[~active] == 0).all()
        assert (log_probabilities[active] < 0).all()

    def test_probabilities_of_all_architectures_sum_to_one(self, policy):
        space = ToyCells(2)
        log_probabilities, _ = policy.judge(space.enumerate(400))
        assert float(log_probabilities.sum(dim=1).exp().sum()) == pytest.approx(1.0)

    def test_samples_follow_their_probabilities(self, policy):
        space = ToyCells(1)
        policy = RecurrentPolicy(space, 8, seed=3)
        rows, _ = policy.sample(40_000, np.random.default_rng(1))
        everything = space.enumerate(20)
        expected = policy.judge(everything)[0].sum(dim=1).exp().detach().numpy()
        keys = np.array(space.keys(rows))
        found = np.array([(keys == key).mean() for key in space.keys(everything)])
        assert np.abs(found - expected).max() < 0.006

    def test_sampling_and_judging_agree(self, policy):
        rows, sampled = policy.sample(30, np.random.default_rng(2))
        assert np.allclose(policy.judge(rows)[0].detach().numpy(), sampled, atol=1e-12)

    @pytest.mark.parametrize("algorithm", ["ppo", "reinforce"])
    def test_what_is_rewarded_becomes_likelier(self, algorithm):
        learner = PolicyLearner(ToyCells(2), 8, LearningSettings(algorithm))
        rng = np.random.default_rng(0)
        for _ in range(40):
            rows, log_probabilities = learner.policy.sample(16, rng)
            learner.learn(Experience(rows, log_probabilities, (rows[:, 0] == 2).astype(float)))
        assert (learner.policy.sample(200, rng)[0][:, 0] == 2).mean() > 0.6

    def test_torchs_generator_is_left_alone(self):
        before = torch.get_rng_state()
        propose(small(), scalar_problem(), History(()), 4)
        assert torch.equal(before, torch.get_rng_state())


class TestLearning:
    def test_a_resumed_controller_has_the_same_policy(self):
        problem = scalar_problem()
        lived = small()
        history = simulate(
            lambda: lived, problem, problem.space.quality, evaluations=40, batch=5, rebuild=False
        ).history
        resumed = small()
        for one, other in zip(
            lived._learner(problem, history).policy.parameters,
            resumed._learner(problem, history).policy.parameters,
            strict=True,
        ):
            assert torch.equal(one, other)

    def test_nothing_is_learnt_beyond_a_pending_trial(self):
        from dataclasses import replace

        problem = scalar_problem()
        history = run(small, problem, 20).history
        first = replace(history.trials[0], state="pending", losses=None, quality=None)
        waiting = History((first, *history.trials[1:]), history.state, history.step)
        fresh = RecurrentPolicy(problem.space, 8)
        learnt = small()._learner(problem, waiting).policy
        assert all(torch.equal(a, b) for a, b in zip(fresh.parameters, learnt.parameters, strict=True))

    def test_copies_are_learnt_from(self):
        problem = scalar_problem(stages=1)
        history = run(small, problem, 15).history
        copies = [t for t in history.trials if t.duplicate_of is not None]
        assert copies
        assert all(LOG_PROBABILITIES in t.attributes for t in copies)

    def test_repaired_rows_are_learnt_as_they_were_sampled(self):
        class Repairing(ToyCells):
            def repair(self, genotypes):
                fixed = genotypes.copy()
                fixed[:, 0] = 0
                return fixed

        space = Repairing(2)
        problem = Problem(space, MnasNetReward(latency_ms=2.0), ToyLatency(space), 2.0)
        proposal = propose(small(), problem, History(()), 8)
        assert (proposal.genotypes[:, 0] == 0).all()
        assert any(SAMPLED in own for own in proposal.attributes)

    def test_a_limit_that_the_objective_does_not_see_costs_reward(self):
        space = ToyCells(6)
        problem = Problem(space, ParetoObjective(("quality",), latency_ms=3.0), ToyLatency(space), 3.0)
        trials = list(run(small, problem, 20).history.trials)
        rewards = _rewards(problem, trials)
        broken = np.array([t.violation > 0 for t in trials])
        first = np.flatnonzero(broken)[0]
        assert broken.any()
        assert not broken.all()
        assert rewards[broken].min() < rewards[~broken].min()
        assert (rewards[~broken] == [-t.losses[0] for t in trials if t.violation <= 0]).all()
        assert rewards[first] <= rewards[: first + 1].min()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"algorithm": "a2c"}, "algorithm"),
        ({"hidden": 0}, "hidden"),
        ({"batch": 0}, "batch"),
        ({"epochs": 0}, "epochs"),
        ({"clip": 1.0}, "clip"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"entropy": -1.0}, "entropy"),
        ({"baseline_decay": 1.0}, "baseline_decay"),
    ],
)
def test_bad_settings(settings, field):
    with pytest.raises(StrategyError, match=f"strategy.{field}"):
        Controller(**settings)


def test_it_says_which_objective_it_wants():
    with pytest.raises(StrategyError, match="mnasnet_soft"):
        propose(small(), pareto_problem(), History(()), 1)
