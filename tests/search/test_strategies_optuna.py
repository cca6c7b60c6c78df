"""Optuna's samplers rebuilt from the ledger at every step, against samplers that lived throughout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf

from gnomon.errors import StrategyError
from gnomon.search import History, Strategy
from gnomon.search.instantiate import instantiate
from gnomon.search.pareto import hypervolume
from gnomon.search.strategies.optuna_cmaes import OptunaCmaEs
from gnomon.search.strategies.optuna_sampler import OptunaStrategy
from gnomon.search.strategies.warm_start import WarmStart
from gnomon.search.strategy import TrainedStrategy
from gnomon.testing import simulate
from gnomon.testing.strategy_problems import pareto_problem, scalar_problem
from gnomon.testing.strategy_suite import propose, run, score

CONF = Path(__file__).resolve().parents[2] / "conf" / "strategy"
BATCH = 4


def genetic(sampler):
    return lambda: OptunaStrategy(sampler, {"population_size": 16}, copies=True)


def lived(strategy, problem, evaluations, seed):
    """The score of one sampler on one study from beginning to end, as Optuna means it to be used."""
    space = problem.space
    directions = ["minimize"] * len(problem.objective.directions)
    study = optuna.create_study(sampler=strategy.make_sampler(seed), directions=directions)
    distributions = {d.name: strategy.distribution(d) for d in space.decisions}
    seen = {}
    for _ in range(evaluations):
        if len(seen) >= evaluations:
            break
        for trial in [study.ask(distributions) for _ in range(BATCH)]:
            row = space.canonical(np.array([[trial.params[d.name] for d in space.decisions]], dtype=np.int8))
            losses = problem.losses(row, space.quality(row))[0]
            violation = float(problem.violation(row)[0])
            if strategy.max_objectives is None:
                trial.set_constraint("latency", violation)
            study.tell(trial, losses.tolist())
            if len(seen) < evaluations:
                seen[space.keys(row)[0]] = (losses, violation)
    losses = np.array([loss for loss, violation in seen.values() if violation <= 0])
    return hypervolume(losses, np.array([0.0]) if losses.shape[1] == 1 else np.array([-40.0, 4.0]))


def rebuilt(factory, problem, evaluations, seed):
    return score(
        simulate(factory, problem, problem.space.quality, evaluations=evaluations, batch=BATCH, seed=seed), problem
    )


CASES = {
    "optuna_nsga2": (genetic("NSGAIISampler"), 120, 6),
    "optuna_nsga3": (genetic("NSGAIIISampler"), 120, 6),
    "tpe": (OptunaStrategy, 40, 6),
    "cmaes": (OptunaCmaEs, 80, 6),
    "qmc": (lambda: OptunaStrategy("QMCSampler", {"scramble": True}, keep_seed=True), 60, 6),
    "gp": (lambda: OptunaStrategy("GPSampler"), 18, 3),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "gp" else n for n in CASES])
@pytest.mark.filterwarnings("ignore")
def test_rebuilt_sampler_is_as_good_as_one_that_lived(name):
    factory, evaluations, seeds = CASES[name]
    problem = scalar_problem() if factory().max_objectives == 1 else pareto_problem()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = np.array([rebuilt(factory, problem, evaluations, seed) for seed in range(seeds)])
    other = np.array([lived(factory(), problem, evaluations, seed) for seed in range(seeds)])
    noise = np.sqrt((own.var(ddof=1) + other.var(ddof=1)) / seeds)
    assert own.mean() > other.mean() - 2.5 * noise


class Forgetful(OptunaStrategy):
    """Rebuilt from parameters and values alone."""

    def propose(self, problem, history, n, rng):
        proposal = super().propose(problem, history, n, rng)
        return type(proposal)(proposal.genotypes)


def test_without_attributes_a_genetic_sampler_is_random_search():
    """So the test above can tell: this is what the attributes are for."""
    problem = pareto_problem()
    seeds = range(6)
    arguments = {"population_size": 16}
    with_them = [rebuilt(genetic("NSGAIISampler"), problem, 120, seed) for seed in seeds]
    without = [
        rebuilt(lambda: Forgetful("NSGAIISampler", arguments, copies=True), problem, 120, seed) for seed in seeds
    ]
    noise = np.sqrt((np.var(with_them, ddof=1) + np.var(without, ddof=1)) / len(seeds))
    assert np.mean(with_them) > np.mean(without) + 2 * noise


def test_generations_advance_and_old_parents_are_forgotten():
    search = run(genetic("NSGAIISampler"), pareto_problem(), 120)
    generations = [t.attributes["NSGAIISampler:generation"] for t in search.history.trials if t.attributes]
    assert max(generations) >= 5
    assert sorted(generations) == generations
    parents = [key for key in search.history.state if ":parent:" in key]
    assert 1 <= len(parents) <= 2


def test_inactive_genes_are_told_as_they_were_asked():
    search = run(genetic("NSGAIISampler"), pareto_problem(), 40)
    told = [t for t in search.history.trials if "gnomon:asked" in t.attributes]
    assert told
    space = pareto_problem().space
    for trial in told:
        asked = np.array([trial.attributes["gnomon:asked"]], dtype=np.int8)
        assert not np.array_equal(asked[0], trial.genotype)
        assert np.array_equal(space.canonical(asked)[0], trial.genotype)


def test_no_pickle_goes_into_the_ledger():
    search = run(OptunaCmaEs, scalar_problem(), 60)
    written = json.dumps([dict(t.attributes) for t in search.history.trials]) + json.dumps(search.history.state)
    assert "cma:generation" in written
    assert max(t.attributes.get("cma:generation", 0) for t in search.history.trials) >= 3
    assert "optimizer" not in written


def test_quasi_random_sequence_goes_on():
    factory = CASES["qmc"][0]
    problem = pareto_problem()
    whole = propose(factory(), problem, History(()), 1)
    state, rows = whole.state, [whole.genotypes]
    seeds = {state["gnomon:sampler_seed"]}
    history = run(factory, problem, 30).history
    assert len(np.unique(history.genotypes, axis=0)) == 30
    seeds.add(propose(factory(), problem, History((), state, 1), 1, seed=99).state["gnomon:sampler_seed"])
    assert len(seeds) == 1
    assert rows[0].shape == (1, len(problem.space.decisions))


def test_copies_only_where_asked_for():
    problem = pareto_problem(stages=1)
    history = run(OptunaStrategy, problem, 15).history
    known = {tuple(row) for row in history.known.tolist()}
    fresh = propose(OptunaStrategy("RandomSampler"), problem, history, 5).genotypes.tolist()
    assert not known & {tuple(row) for row in fresh}
    again = propose(OptunaStrategy("RandomSampler", copies=True), problem, history, 5).genotypes.tolist()
    assert known & {tuple(row) for row in again}


@pytest.mark.parametrize(
    ("sampler", "arguments", "match"),
    [
        ("SuperSampler", {}, "no such sampler"),
        ("create_study", {}, "no such sampler"),
        ("TPESampler", {"temperature": 1}, "temperature"),
        ("TPESampler", {"seed": 1}, "seed"),
        ("NSGAIISampler", {"population_size": 1}, "population_size"),
        ("GridSampler", {}, "GridSampler"),
    ],
)
def test_bad_samplers(sampler, arguments, match):
    with pytest.raises(StrategyError, match=match):
        propose(OptunaStrategy(sampler, arguments), pareto_problem(), History(()), 1)


def test_cmaes_says_which_objective_it_wants():
    with pytest.raises(StrategyError, match="mnasnet_soft"):
        propose(OptunaCmaEs(), pareto_problem(), History(()), 1)


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_configs(file):
    node = OmegaConf.load(file)
    strategy = instantiate(node, "strategy")
    assert isinstance(strategy, Strategy)
    written = OmegaConf.to_container(node)
    for key, value in strategy.settings().items():
        if key in written:
            assert_says(written[key], value)
        else:
            assert key in ("sampler", "copies", "keep_seed")


def assert_says(written: Any, value: Any) -> None:
    """What is written of a part is the part's; what is no setting of it (a file, threads) may be written besides."""
    if isinstance(value, dict) and isinstance(written, dict):
        for key, each in value.items():
            assert_says(written[key], each)
    else:
        assert written == value


@pytest.mark.parametrize("file", sorted(CONF.glob("*.yaml")), ids=lambda file: file.stem)
def test_configured_strategies_propose(file):
    strategy = instantiate(OmegaConf.load(file), "strategy")
    if isinstance(strategy, (TrainedStrategy, WarmStart)):
        pytest.skip("needs networks that can be trained or scored; in tests of its own")
    if file.stem == "botorch":
        pytest.importorskip("botorch")
    problem = scalar_problem() if strategy.max_objectives == 1 else pareto_problem()
    assert len(propose(strategy, problem, History(()), 3).genotypes) == 3
