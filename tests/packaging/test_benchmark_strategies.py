"""The benchmarks of search strategies: how they count, and quick runs."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import controller, strategies
from benchmarks._contestants import REPEATS, Book, optuna_directly, pymoo_nsga2
from gnomon.testing.strategy_problems import pareto_problem

ROW = np.array([0, 1, 0] * 6)


@pytest.fixture
def book():
    problem = pareto_problem()
    return Book(problem, problem.space.quality, 30)


class TestBook:
    def test_what_is_known_costs_nothing(self, book):
        first = book.evaluate(ROW)
        assert book.evaluate(ROW) is first
        assert len(book.rows) == 1

    def test_inactive_genes_do_not_make_it_another_network(self, book):
        skips = ROW.copy()
        skips[1] = 0
        other = skips.copy()
        other[2] = 1
        book.evaluate(skips)
        book.evaluate(other)
        assert len(book.rows) == 1

    def test_an_optimiser_that_repeats_itself_is_stuck(self, book):
        for _ in range(REPEATS):
            book.evaluate(ROW)
        assert not book.stuck
        book.evaluate(ROW)
        assert book.stuck
        book.evaluate(book.unseen(np.random.default_rng(0)))
        assert not book.stuck

    @pytest.mark.parametrize(
        "optimise",
        [
            lambda book: optuna_directly("NSGAIISampler", {"population_size": 10}, book, 0),
            lambda book: optuna_directly("TPESampler", {}, book, 0),
        ],
    )
    def test_the_whole_budget_is_spent_on_distinct_networks(self, book, optimise):
        optimise(book)
        rows = book.first()
        assert rows.shape == (30, 18)
        assert len(np.unique(rows, axis=0)) == 30

    def test_pymoo(self, book):
        pytest.importorskip("pymoo")
        pymoo_nsga2(10, book, 0)
        assert len(np.unique(book.first(), axis=0)) == 30


def test_evaluations_to_the_same_reward():
    reference = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    found = np.array([[[0.0, 0.5, 2.0, 2.5, 3.0, 3.5]]])
    metrics = controller.ratios("mine", reference, found, (2, 4), ["a"])
    assert metrics["evaluations_ratio.mine.2.a"] == pytest.approx(1.5)
    assert metrics["reached.mine.2.mean"] == 1.0
    assert metrics["reached.mine.4.a"] == 0.0
    assert metrics["evaluations_ratio.mine.4.a"] == controller.ALLOWED


@pytest.mark.slow
def test_strategies_quickly(data_root, monkeypatch, tmp_path):
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    strategies.grounds.cache_clear()
    words = ["--only", "random", "direct_optuna_nsga2", "--evaluations", "50"]
    options = strategies.parser().parse_args(words)
    options.quick, options.json = True, None
    found = strategies.run(options)
    for data in ("nasbench201", "nasbench_macro"):
        for name in ("random", "direct_optuna_nsga2"):
            assert 0.5 < found[f"{data}.hypervolume.{name}.20.mean"] <= found[f"{data}.hypervolume.{name}.50.mean"] < 1
            assert found[f"{data}.accuracy.{name}.50.mean"] <= found[f"{data}.accuracy.possible.mean"]


def test_one_strategy_keeps_the_others_figures(tmp_path):
    file = tmp_path / "strategies.json"
    file.write_text(json.dumps({"benchmark": "strategies", "environment.cores": 2, "nasbench201.seconds.nsga2": 3.0}))
    options = argparse.Namespace(only=["random"], quick=False, json=file)
    assert strategies.kept(options) == {"nasbench201.seconds.nsga2": 3.0}
    options.only = None
    assert strategies.kept(options) == {}


@pytest.mark.slow
def test_controller_quickly(data_root, monkeypatch):
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    strategies.grounds.cache_clear()
    found = controller.run(argparse.Namespace(quick=True))
    assert 0 < found["evaluations_ratio.controller.50.mean"] <= controller.ALLOWED
