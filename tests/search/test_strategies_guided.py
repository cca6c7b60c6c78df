"""What the guided strategies do beyond the contract."""

import numpy as np
import pytest

from gnomon.errors import StrategyError
from gnomon.predictors.upper_gaussian_process import UpperGaussianProcess
from gnomon.search import History, Problem
from gnomon.search.inner_loop import evolve
from gnomon.search.pareto import hypervolume, non_dominated
from gnomon.search.strategies._acquisition import Acquisition
from gnomon.search.strategies._candidates import feasible_pool
from gnomon.search.strategies._solving import solved_last
from gnomon.search.strategies.aging_evolution import AgingEvolution
from gnomon.search.strategies.nsga2 import NSGA2
from gnomon.search.strategies.random import RandomStrategy
from gnomon.testing.strategy_problems import ToyCells, ToyLatency, pareto_problem
from gnomon.testing.strategy_suite import propose, run


class NamedCells(ToyCells):
    """With one network that meets a limit of 3.5 ms and one that does not."""

    @property
    def named(self):
        small = {f"{part}{i}": value for i in range(self.stages) for part, value in (("width", 8), ("op", "skip"))}
        large = {f"width{i}": 32 for i in range(self.stages)} | {f"op{i}": "conv" for i in range(self.stages)}
        return {"large": large | {f"kernel{i}": 5 for i in range(self.stages)}, "small": small}


def test_feasible_named_networks_lead():
    plain = pareto_problem()
    space = NamedCells(plain.space.stages)
    problem = Problem(space, plain.objective, ToyLatency(space), plain.limit_ms)
    rows = propose(NSGA2(), problem, History(()), 4).genotypes
    assert np.array_equal(rows[0], space.named_genotype("small"))
    assert not (rows == space.named_genotype("large")).all(axis=1).any()
    without = propose(NSGA2(named=False), problem, History(()), 4).genotypes
    assert not (without == space.named_genotype("small")).all(axis=1).any()


@pytest.mark.parametrize("factory", [NSGA2, RandomStrategy, AgingEvolution])
def test_only_feasible_rows_where_there_are_enough(factory):
    search = run(factory, pareto_problem(), 60)
    assert max(t.violation for t in search.history.trials) <= 0


def test_a_decision_that_is_solved_last_is_as_large_as_the_limit_allows():
    problem = pareto_problem()
    search = run(lambda: AgingEvolution(population=12, tournament=4, solve_last="width0"), problem, 40)
    column = problem.space.algebra.index["width0"]
    largest = len(problem.space.decisions[column].choices) - 1
    for row in (trial.genotype for trial in search.history.trials):
        assert problem.violation(row[None])[0] <= 0
        if row[column] < largest:
            wider = row.copy()
            wider[column] += 1
            assert problem.violation(wider[None])[0] > 0


def test_the_smallest_choice_where_none_meets_the_limit():
    problem = pareto_problem(limit_ms=1e-6)
    rows = solved_last(problem, problem.space.sample(8, np.random.default_rng(0)), "width0")
    assert not rows[:, problem.space.algebra.index["width0"]].any()


@pytest.mark.parametrize("decision", ["op0", "depth", "width9"])
def test_what_cannot_be_solved_is_named(decision):
    with pytest.raises(StrategyError, match=r"strategy.solve_last.*width0"):
        AgingEvolution(solve_last=decision).check(pareto_problem().space)


def test_a_needle_of_a_feasible_region_is_found():
    """Few random rows meet the limit, so the pool must go and look for such."""
    problem = pareto_problem(stages=10, limit_ms=1.35)
    random = problem.space.sample(4096, np.random.default_rng(0))
    assert (problem.violation(random) <= 0).sum() < 8
    pool = feasible_pool(problem, History(()), 8, np.random.default_rng(0))
    assert len(pool) >= 8
    assert (pool.violation <= 0).all()


def test_the_first_design_covers_the_range_of_latency():
    problem = pareto_problem(limit_ms=None)
    rows = propose(NSGA2(initial=12), problem, History(()), 12).genotypes
    latency = problem.latency.predict_mean(rows)
    pool = problem.latency.predict_mean(problem.space.sample(4096, np.random.default_rng(1)))
    assert latency.min() < np.quantile(pool, 0.1)
    assert latency.max() > np.quantile(pool, 0.9)
    assert len(np.unique(rows, axis=0)) == 12


def test_inner_loop_finds_the_front_of_a_known_problem():
    problem = pareto_problem(stages=3)
    space = problem.space
    everything = space.enumerate(20_000)
    everything = everything[problem.violation(everything) <= 0]
    losses = problem.losses(everything, space.quality(everything))
    reference = losses.max(axis=0)

    def score(rows):
        return problem.losses(rows, space.quality(rows)), problem.violation(rows)

    rng = np.random.default_rng(0)
    found = evolve(space, score, space.sample(100, rng), rng, population=100, generations=20)
    assert len(np.unique(found.genotypes, axis=0)) == len(found) <= 100
    front = found.losses[(found.violation <= 0)]
    assert hypervolume(front, reference) > 0.99 * hypervolume(losses[non_dominated(losses)], reference)


def test_a_batch_is_spread_over_the_front():
    """Picked without regard to each other, the best candidates would crowd in one place."""
    problem = pareto_problem()
    history = run(RandomStrategy, problem, 40).history
    predictor = UpperGaussianProcess(problem.space).fit(history.genotypes, history.quality)
    candidates = np.unique(problem.space.sample(500, np.random.default_rng(3)), axis=0)
    candidates = candidates[problem.violation(candidates) <= 0]
    picked = Acquisition(problem, history, predictor, candidates, 16, np.random.default_rng(0)).pick(6)
    assert len(set(picked.tolist())) == 6
    fresh = Acquisition(problem, history, predictor, candidates, 16, np.random.default_rng(0))
    alone = np.argsort(-fresh._gain(np.arange(len(candidates))))[:6]
    assert picked[0] == alone[0]

    def joint_volume(batch):
        """Mean over worlds of what front and batch dominate together."""
        worlds = zip(fresh._fronts, fresh._points, strict=True)
        return np.mean([hypervolume(np.vstack([front, points[batch]]), np.zeros(2)) for front, points in worlds])

    assert joint_volume(picked) > joint_volume(alone)


def test_lazy_picks_equal_exhaustive_ones():
    problem = pareto_problem()
    history = run(RandomStrategy, problem, 30).history
    predictor = UpperGaussianProcess(problem.space).fit(history.genotypes, history.quality)
    candidates = np.unique(problem.space.sample(200, np.random.default_rng(3)), axis=0)
    lazy = Acquisition(problem, history, predictor, candidates, 8, np.random.default_rng(0)).pick(5)
    full = Acquisition(problem, history, predictor, candidates, 8, np.random.default_rng(0))
    expected = []
    for _ in range(5):
        gain = full._gain(np.arange(len(candidates)))
        gain[expected] = -1
        expected.append(int(gain.argmax()))
        full._fronts = [np.vstack([f, p[expected[-1]]]) for f, p in zip(full._fronts, full._points, strict=True)]
    assert lazy.tolist() == expected


def test_surrogate_looks_beyond_the_best_seen():
    """Trained on the worse half, it must rank the better half and say that it is better."""
    space = pareto_problem().space
    rows = np.unique(space.sample(1200, np.random.default_rng(0)), axis=0)
    quality = space.quality(rows)
    order = np.random.default_rng(1).permutation(np.flatnonzero(quality < np.median(quality)))[:150]
    best = np.argsort(quality)[-100:]
    mean, std = UpperGaussianProcess(space).fit(rows[order], quality[order]).predict(rows[best])
    assert mean.max() > quality[order].max()
    assert (std > 0).all()


def test_surrogate_bears_failed_networks():
    """A few networks at chance level must not drown the differences among the good ones."""
    space = pareto_problem().space
    rows = np.random.default_rng(1).permutation(np.unique(space.sample(400, np.random.default_rng(0)), axis=0))
    quality = space.quality(rows)
    spoilt = quality.copy()
    spoilt[:8] = -1000.0
    clean, bearing = (
        UpperGaussianProcess(space).fit(rows[:120], values[:120]).predict(rows[200:])[0] for values in (quality, spoilt)
    )
    clean, bearing = (np.corrcoef(predicted, quality[200:])[0, 1] for predicted in (clean, bearing))
    assert bearing > 0.8
    assert bearing > clean - 0.15


@pytest.mark.parametrize(
    ("factory", "field"),
    [
        (lambda: NSGA2(initial=2), "strategy.initial"),
        (lambda: NSGA2(population=3), "strategy.population"),
        (lambda: NSGA2(draws=0), "strategy.draws"),
        (lambda: NSGA2(optimism=-1), "strategy.optimism"),
        (lambda: AgingEvolution(population=1), "strategy.population"),
        (lambda: AgingEvolution(population=5, tournament=9), "strategy.tournament"),
        (lambda: AgingEvolution(mutations=0), "strategy.mutations"),
    ],
)
def test_settings_are_checked(factory, field):
    with pytest.raises(StrategyError, match=field):
        factory()


@pytest.mark.slow
def test_nasbench201_beats_random(data_root):
    from gnomon.predictors import BayesianLinearPredictor
    from gnomon.records.tables import help_nasbench201, hwnas360
    from gnomon.search.objectives import ParetoObjective
    from gnomon.testing import simulate

    latency = help_nasbench201(data_root / "help" / "nasbench201", devices=["fpga"])
    accuracy = hwnas360(data_root / "hwnas360" / "dataset.parquet")
    predictor = BayesianLinearPredictor(latency.space)
    references = predictor.references(10, seed=0)
    model = predictor.adapt(references, latency.lookup(references, "fpga"))
    problem = Problem(latency.space, ParetoObjective(), model)

    def losses(rows):
        return np.stack([-accuracy.lookup(rows, "accuracy"), latency.lookup(rows, "fpga")], axis=1)

    everything = losses(accuracy.genotypes)
    front = everything[non_dominated(everything)]
    reference = front.max(axis=0)
    shares = {}
    for factory in (NSGA2, RandomStrategy):
        search = simulate(
            factory, problem, lambda rows: accuracy.lookup(rows, "accuracy"), evaluations=300, batch=10, seed=0
        )
        shares[factory] = hypervolume(losses(search.history.genotypes), reference) / hypervolume(front, reference)
    assert shares[NSGA2] > 0.98 > shares[RandomStrategy]
