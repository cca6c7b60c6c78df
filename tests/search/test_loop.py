"""The run loop: budgets, failures, determinism, exhausted spaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from gnomon.errors import StudyError, TaskError
from gnomon.search import History, Problem, Proposal, Strategy
from gnomon.search.ledger import Ledger
from gnomon.search.loop import evaluation_seed, run_worker

Open = Callable[[], Ledger]


def test_the_budget_counts_distinct_evaluations(open_ledger: Open, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    ledger = open_ledger()
    run_worker(ledger, problem, components)
    assert len(components.evaluator.evaluated) == 20
    assert len(set(components.evaluator.evaluated)) == 20
    assert ledger.counts().evaluated == 20


def test_more_evaluations_go_on_where_it_stopped(open_ledger: Open, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    run_worker(open_ledger(), problem, components)
    components.study = replace(components.study, evaluations=24)
    run_worker(open_ledger(), problem, components)
    assert len(components.evaluator.evaluated) == 24


def test_an_interrupted_run_ends_like_an_undisturbed_one(tmp_path, space, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    def run(name: str, interrupts: int) -> list[str]:
        rng = np.random.default_rng(0)
        components.evaluator.evaluated.clear()

        def sometimes(key: str) -> None:
            nonlocal interrupts
            if interrupts and rng.random() < 0.3:
                interrupts -= 1
                raise KeyboardInterrupt

        components.evaluator.before = sometimes
        while True:
            ledger = Ledger(f"sqlite:///{tmp_path}/{name}.sqlite", "toy", space)
            ledger.create(problem.objective, {})
            try:
                run_worker(ledger, problem, components)
                return sorted(components.evaluator.evaluated)
            except KeyboardInterrupt:
                continue

    assert run("undisturbed", 0) == run("disturbed", 8)


def test_a_failure_costs_one_evaluation(open_ledger: Open, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    failed = []

    def fails_once(key: str) -> None:
        if not failed:
            failed.append(key)
            raise TaskError("not this one")

    components.evaluator.before = fails_once
    ledger = open_ledger()
    run_worker(ledger, problem, components)
    assert ledger.counts().failed == 1
    assert ledger.counts().spent == 20
    assert failed[0] not in components.evaluator.evaluated


def test_failures_in_a_row_end_the_search_with_the_cause(open_ledger: Open, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    def always(key: str) -> None:
        raise ZeroDivisionError("my training code is broken")

    components.evaluator.before = always
    with pytest.raises(StudyError, match="my training code is broken"):
        run_worker(open_ledger(), problem, components)


def test_a_strategy_without_ideas_is_filled_up_and_an_exhausted_space_ends(
    tmp_path, problem: Problem, components
) -> None:  # type: ignore[no-untyped-def]
    class NoIdeas(Strategy):
        name = "no_ideas"

        def propose(self, problem: Problem, history: History, n: int, rng: np.random.Generator) -> Proposal:
            return Proposal(np.zeros((0, 3), dtype=np.int8))

    small = type(problem.space)(depth=2)  # 3 + 2 * 3 choices of (x0, y), times 3 of x1
    problem = replace(problem, space=small)
    components.space, components.strategy = small, NoIdeas()
    components.study = replace(components.study, evaluations=100, batch=10)
    ledger = Ledger(f"sqlite:///{tmp_path}/small.sqlite", "small", small)
    ledger.create(problem.objective, {})
    run_worker(ledger, problem, components)
    assert ledger.counts().evaluated == 21


def test_evaluation_seeds_depend_on_run_and_architecture_only() -> None:
    assert evaluation_seed(0, "1.2") == evaluation_seed(0, "1.2")
    assert len({evaluation_seed(s, k) for s in (0, 1) for k in ("1.2", "2.1")}) == 4
