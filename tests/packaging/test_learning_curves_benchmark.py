"""The benchmark of early stopping: its arithmetic, and a quick run."""

import argparse

import numpy as np
import pytest

from benchmarks._curves import EPOCHS, read_curves
from benchmarks.learning_curves import Replay, run, summary


def test_a_search_that_missed_the_best_pays_for_the_full_one():
    final = np.array([0.5, 0.9, 0.7])
    right = Replay(np.array([EPOCHS, EPOCHS, 1]), final, np.array([-np.inf, 0.5, 0.9]))
    wrong = Replay(np.array([EPOCHS, 1, EPOCHS]), final, np.array([-np.inf, 0.5, 0.5]))
    assert right.epochs_until_best() == (2 * EPOCHS, 2 * EPOCHS)
    assert wrong.epochs_until_best() == (2 * EPOCHS + 1 + 2 * EPOCHS, 2 * EPOCHS)
    found = summary([right, wrong])
    assert found["epochs_saved_ratio"] == pytest.approx(6 * EPOCHS / (4 * EPOCHS + 2 + 3 * EPOCHS))
    assert found["same_best"] == 0.5
    assert found["false_stops"] == 0.5
    assert found["winners_lost"] == pytest.approx(1 / 5)
    assert found["best_lost"] == pytest.approx(10.0)


def test_the_committed_curves_are_accuracies():
    curves = read_curves()
    assert len(curves) >= 300
    assert curves.shape[1] == EPOCHS
    assert ((curves >= 0) & (curves <= 1)).all()


@pytest.mark.slow
def test_a_quick_run(capsys):
    metrics = run(argparse.Namespace(quick=True, train=False))
    assert metrics["epochs_saved_ratio"] > 1.5
    assert metrics["false_stops"] < 0.05
    assert all(np.isfinite(value) for value in metrics.values())
