"""What every strategy promises, as tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from ..errors import StrategyError
from ..search.history import History
from ..search.pareto import hypervolume
from ..search.problem import Problem
from ..search.strategies.random import RandomStrategy
from ..search.strategy import Proposal, Strategy
from ..search_spaces import Genotypes
from .simulation import Simulation, simulate
from .strategy_problems import ToyCells, pareto_problem, scalar_problem, three_way_problem

FloatArray = npt.NDArray[np.float64]
StrategyFactory = Callable[[], Strategy]


class StrategySuite:
    """Subclass it and give it the fixture ``strategy_factory``, which makes a new strategy at each call.

    Class attributes to set where they do not fit: ``guided`` (whether it must beat random search),
    ``evaluations`` (of most simulated searches) and ``guided_evaluations`` (of that comparison).
    """

    guided: ClassVar[bool] = True
    evaluations: ClassVar[int] = 30
    guided_evaluations: ClassVar[int] = 80

    @pytest.fixture
    def strategy_factory(self) -> StrategyFactory:
        """Makes the strategy under test, with the same settings each time."""
        raise NotImplementedError("a StrategySuite needs a fixture `strategy_factory`")

    @pytest.fixture
    def problem(self, strategy_factory: StrategyFactory) -> Problem:
        """With as many objectives as the strategy can handle."""
        return scalar_problem() if strategy_factory().max_objectives == 1 else pareto_problem()

    @pytest.fixture
    def search(self, strategy_factory: StrategyFactory, problem: Problem) -> Simulation:
        """A search that most tests start from, made once for each suite."""
        own = type(self)
        if "_search" not in own.__dict__:
            own._search = run(strategy_factory, problem, own.evaluations)  # type: ignore[attr-defined]
        return own._search  # type: ignore[attr-defined,no-any-return]

    def test_it_takes_a_space_that_it_searches(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        strategy_factory().check(problem.space)

    # ---- Rows -------------------------------------------------------------------------------

    def test_rows_are_canonical(self, search: Simulation, problem: Problem) -> None:
        for proposal in search.proposals:
            rows = problem.space.algebra.validate(proposal.genotypes)
            assert np.array_equal(rows, problem.space.canonical(rows)), "inactive genes must be 0"
            assert proposal.genotypes.dtype == rows.dtype

    @pytest.mark.parametrize("n", [1, 3, 17])
    def test_at_most_n_rows(
        self, strategy_factory: StrategyFactory, problem: Problem, search: Simulation, n: int
    ) -> None:
        for known in (History(()), search.history):
            proposal = propose(strategy_factory(), problem, known, n)
            assert 1 <= len(proposal.genotypes) <= n

    def test_it_moves_on(self, search: Simulation) -> None:
        assert len(distinct_rows(search)) == self.evaluations
        assert search.fills <= len(search.proposals) // 2, "most steps must bring something new"

    # ---- No memory of its own ---------------------------------------------------------------

    def test_same_history_same_proposal(
        self, strategy_factory: StrategyFactory, problem: Problem, search: Simulation
    ) -> None:
        for known in (History(()), search.history):
            first, second = (propose(strategy_factory(), problem, known, 5) for _ in range(2))
            assert_same(first, second)

    def test_another_seed_another_proposal(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        first, second = (propose(strategy_factory(), problem, History(()), 5, seed=seed) for seed in (1, 2))
        assert not np.array_equal(first.genotypes, second.genotypes)

    def test_calls_leave_nothing_behind(
        self, strategy_factory: StrategyFactory, problem: Problem, search: Simulation
    ) -> None:
        history = search.history
        strategy = strategy_factory()
        for other in (History(()), history):
            propose(strategy, problem, other, 3, seed=9)
        assert_same(propose(strategy, problem, history, 5), propose(strategy_factory(), problem, history, 5))

    def test_rebuilt_at_every_step(
        self, strategy_factory: StrategyFactory, problem: Problem, search: Simulation
    ) -> None:
        lived = run(strategy_factory, problem, self.evaluations, rebuild=False)
        assert np.array_equal(distinct_rows(search), distinct_rows(lived))

    def test_global_generators_are_left_alone(
        self, strategy_factory: StrategyFactory, problem: Problem, search: Simulation
    ) -> None:
        before = np.random.get_state(legacy=False)  # noqa: NPY002 - the one that must not change
        propose(strategy_factory(), problem, search.history, 3)
        after = np.random.get_state(legacy=False)  # noqa: NPY002
        assert json.dumps(before, default=repr) == json.dumps(after, default=repr)

    def test_state_and_attributes_are_json(self, search: Simulation) -> None:
        for proposal in search.proposals:
            assert json.loads(json.dumps(proposal.state, allow_nan=False)) == proposal.state
            assert len(proposal.attributes) in (0, len(proposal.genotypes))
            for own in proposal.attributes:
                assert json.loads(json.dumps(own, allow_nan=False)) == own

    def test_settings_make_it_again(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        strategy = strategy_factory()
        settings = json.loads(json.dumps(strategy.settings()))
        assert strategy.name
        assert_same(
            propose(type(strategy)(**settings), problem, History(()), 4),
            propose(strategy, problem, History(()), 4),
        )

    # ---- Awkward histories ------------------------------------------------------------------

    def test_failures(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        def fails_often(rows: Genotypes) -> FloatArray:
            return np.where(rows[:, 0] == 1, np.nan, quality_of(problem)(rows))

        search = run(strategy_factory, problem, self.evaluations, fails_often)
        assert len(distinct_rows(search)) == self.evaluations
        assert any(t.state == "failed" for t in search.history.trials)

    def test_nothing_but_failures(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        search = run(strategy_factory, problem, 20, lambda rows: np.full(len(rows), np.nan))
        assert len(distinct_rows(search)) == 20

    def test_equal_qualities(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        search = run(strategy_factory, problem, self.evaluations, lambda rows: np.full(len(rows), 0.5))
        assert len(distinct_rows(search)) == self.evaluations

    def test_pending(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        search = run(strategy_factory, problem, self.evaluations, lag=6)
        assert len(distinct_rows(search)) == self.evaluations

    def test_nothing_is_feasible(self, strategy_factory: StrategyFactory) -> None:
        many = strategy_factory().max_objectives != 1
        problem = pareto_problem(limit_ms=0.5) if many else scalar_problem(limit_ms=0.5)
        search = run(strategy_factory, problem, self.evaluations)
        assert len(distinct_rows(search)) == self.evaluations
        assert min(t.violation for t in search.history.trials) > 0

    def test_exhausted_space(self, strategy_factory: StrategyFactory) -> None:
        many = strategy_factory().max_objectives != 1
        problem = pareto_problem(stages=1) if many else scalar_problem(stages=1)
        search = run(strategy_factory, problem, 60)
        assert len(distinct_rows(search)) == 20, "all of a space of 20, each once"
        known = {tuple(row) for row in search.history.known.tolist()}
        after = propose(strategy_factory(), problem, search.history, 4)
        assert {tuple(row) for row in after.genotypes.tolist()} <= known

    # ---- Objectives -------------------------------------------------------------------------

    def test_one_objective(self, strategy_factory: StrategyFactory) -> None:
        assert len(distinct_rows(run(strategy_factory, scalar_problem(), self.evaluations))) == self.evaluations

    def test_three_objectives(self, strategy_factory: StrategyFactory) -> None:
        most = strategy_factory().max_objectives
        problem = three_way_problem()
        if most is not None and most < 3:
            with pytest.raises(StrategyError):
                propose(strategy_factory(), problem, History(()), 4)
        else:
            assert len(distinct_rows(run(strategy_factory, problem, self.evaluations))) == self.evaluations

    def test_better_than_random(self, strategy_factory: StrategyFactory, problem: Problem) -> None:
        if not self.guided:
            pytest.skip("does not learn from evaluations")
        own, random = (
            np.mean([score(run(factory, problem, self.guided_evaluations, seed=seed), problem) for seed in range(3)])
            for factory in (strategy_factory, RandomStrategy)
        )
        assert own > random


def run(
    strategy_factory: StrategyFactory,
    problem: Problem,
    evaluations: int,
    quality: Callable[[Genotypes], FloatArray] | None = None,
    **options: Any,
) -> Simulation:
    """A simulated search with batches of 5."""
    options = {"batch": 5, **options}
    return simulate(strategy_factory, problem, quality or quality_of(problem), evaluations=evaluations, **options)


def quality_of(problem: Problem) -> Callable[[Genotypes], FloatArray]:
    """The known quality of a problem of :mod:`.strategy_problems`."""
    space = problem.space
    if not isinstance(space, ToyCells):
        raise StrategyError("no known quality", field="problem.space", value=space.name, allowed=ToyCells.name)
    return space.quality


def score(search: Simulation, problem: Problem) -> float:
    """Hypervolume of the feasible evaluations, from a fixed point that all of them dominate."""
    losses = search.history.losses[search.history.violation <= 0]
    worst = np.array([0.0]) if losses.shape[1] == 1 else np.array([-40.0, *([4.0] * (losses.shape[1] - 1))])
    return hypervolume(losses, worst)


def propose(strategy: Strategy, problem: Problem, history: History, n: int, seed: int = 0) -> Proposal:
    """One step, with the generator that a run of this seed would pass."""
    return strategy.propose(problem, history, n, np.random.default_rng([seed, history.step]))


def distinct_rows(search: Simulation) -> Genotypes:
    """What was paid for, in order; fails if an architecture was paid for twice."""
    rows = np.stack([t.genotype for t in search.history.trials if t.duplicate_of is None])
    assert len(np.unique(rows, axis=0)) == len(rows), "an architecture was evaluated twice"
    return rows


def assert_same(first: Proposal, second: Proposal) -> None:
    """Rows, state and attributes agree."""
    assert np.array_equal(first.genotypes, second.genotypes)
    assert first.state == second.state
    assert list(first.attributes) == list(second.attributes)
