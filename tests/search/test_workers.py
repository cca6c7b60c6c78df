"""Several workers on one study: nothing twice, and the death of one costs nothing."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import psutil
import pytest

from gnomon.conf.compose import compose
from gnomon.search import History, Problem, Proposal
from gnomon.search.ledger import Ledger
from gnomon.search.log_file import LOG_FILE
from gnomon.search.loop import run_worker
from gnomon.search.study import open_study, run_search
from gnomon.search_spaces import SearchSpace
from tests.search.doubles import study_doubles as doubles

Open = Callable[[], Ledger]
EVALUATIONS = 24


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.write_table(tmp_path_factory.mktemp("table") / "table.npz")


def two_workers(table: Path, folder: Path, evaluator: str) -> Any:
    """The config of a search by two processes, in which ``evaluator`` says what happens."""
    words = [f"study.evaluations={EVALUATIONS}", "study.workers=2", "quality.cost_s=0.05", "plugins=[tests]"]
    config = compose("search", [*doubles.recorded_overrides(table, folder), *words, "finalise.enabled=false"])
    config.quality = {
        **config.quality,
        "_target_": f"{doubles.__name__}.{evaluator}",
        "marker": str(folder / "at_work"),
    }
    return config


def keys_by_worker(ledger: Ledger) -> dict[str, list[str]]:
    """Architectures that were evaluated and are not copies, by who evaluated them."""
    result: dict[str, list[str]] = {}
    for trial in ledger.frozen_trials():
        assert trial.state == optuna.trial.TrialState.COMPLETE
        if "duplicate_of" not in trial.user_attrs:
            worker = trial.user_attrs["claim"]["worker"]
            result.setdefault(worker, []).append(trial.user_attrs["architecture"])
    return result


@pytest.mark.slow
def test_two_processes_share_the_budget_and_repeat_nothing(table: Path, tmp_path: Path) -> None:
    summary, _ = run_search(two_workers(table, tmp_path, "PatientEvaluator"), doubles.Silence())
    shares = keys_by_worker(open_study(tmp_path / "here").ledger)
    keys = [key for share in shares.values() for key in share]
    assert len(shares) == 2, "the child did nothing"
    assert len(keys) == len(set(keys)) == EVALUATIONS == summary.spend["evaluations"]
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_child_that_is_killed_costs_nothing(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gnomon.search.ledger.CLAIM_LIMIT_S", 5.0)
    started = time.monotonic()
    summary, _ = run_search(two_workers(table, tmp_path, "DeadlyEvaluator"), doubles.Silence())
    assert time.monotonic() - started < 90
    killed = (tmp_path / "at_work").read_text()
    (keys,) = keys_by_worker(open_study(tmp_path / "here").ledger).values()
    assert killed in keys
    assert len(keys) == len(set(keys)) == EVALUATIONS == summary.spend["evaluations"]
    assert summary.spend["failures"] == 0
    log = (tmp_path / "here" / LOG_FILE).read_text()
    assert "worker-1 ended with exit code -9; its claims were taken over" in log


@pytest.mark.slow
def test_an_interrupted_parent_leaves_no_children(table: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_search(two_workers(table, tmp_path, "InterruptedEvaluator"), doubles.Silence())
    assert (tmp_path / "at_work").exists(), "the child was at work"
    assert multiprocessing.active_children() == []
    ledger = open_study(tmp_path / "here").ledger
    assert ledger.counts().running == 1, "the child's, which nobody gave back"
    assert all("claim" in t.user_attrs for t in ledger.frozen_trials() if t.state.name == "RUNNING")


def test_an_interrupt_gives_the_claim_back(open_ledger: Open, problem: Problem, components) -> None:  # type: ignore[no-untyped-def]
    interrupted: list[str] = []

    def third(key: str) -> None:
        if len(components.evaluator.evaluated) == 2:
            interrupted.append(key)
            raise KeyboardInterrupt

    components.evaluator.before = third
    ledger = open_ledger()
    with pytest.raises(KeyboardInterrupt):
        run_worker(ledger, problem, components)
    counts = open_ledger().counts()
    assert (counts.evaluated, counts.running, counts.failed, counts.waiting) == (2, 0, 0, 2)
    claim = open_ledger().claim()
    assert claim is not None
    assert claim.key == interrupted[0], "first in the queue, for whoever comes next"


def test_a_claim_is_in_the_name_of_who_has_it(open_ledger: Open, problem: Problem, space: SearchSpace) -> None:
    """The survivor still has the trial of the dead one in its queue, from when it was pending."""
    survivor, dead = open_ledger(), open_ledger()
    dead.worker = dead.worker.rsplit(":", 1)[0] + ":1.0"  # a process id that has been reused
    with survivor.lease().held():
        survivor.commit(
            Proposal(np.unique(space.sample(9, np.random.default_rng(0)), axis=0)[:3]), problem, History(())
        )
    first, lost = survivor.claim(), dead.claim()
    assert first is not None
    assert lost is not None
    third = survivor.claim()
    assert third is not None
    assert len({first.key, lost.key, third.key}) == 3
    assert survivor.reap(problem) == 1, "else it is missing until its heartbeat is old"


def test_workers_that_take_turns_share_the_budget(
    storage: str, space: SearchSpace, problem: Problem, components: Any
) -> None:
    """Two ledgers in one process: one is interrupted again and again while the other goes on."""
    first, second = Ledger(storage, "toy", space), Ledger(storage, "toy", space)
    first.create(problem.objective, {})
    second.create(problem.objective, {})
    turns = 0

    def every_third(key: str) -> None:
        nonlocal turns
        turns += 1
        if turns % 3 == 0:
            raise KeyboardInterrupt

    components.evaluator.before = every_third
    for round_ in range(100):
        try:
            run_worker((first, second)[round_ % 2], problem, components)
            break
        except KeyboardInterrupt:
            continue
    done = components.evaluator.evaluated
    assert len(done) == len(set(done)) == components.study.evaluations == first.counts().evaluated
    assert first.counts().running == second.counts().waiting == 0


def test_a_time_limit_stops_a_worker_and_leaves_the_rest_pending(
    open_ledger: Open, problem: Problem, components
) -> None:  # type: ignore[no-untyped-def]
    components.study = replace(components.study, time_limit_s=0.3)
    components.evaluator.before = lambda key: time.sleep(0.1)
    ledger = open_ledger()
    run_worker(ledger, problem, components)
    counts = ledger.counts()
    assert 0 < counts.evaluated < 20
    assert counts.running == 0


ORPHAN = """
import multiprocessing, os, sys, time
from gnomon.search.workers import die_with

def child(parent):
    die_with(parent)
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=child, args=(os.getpid(),)).start()
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_killed_parent_leaves_no_orphans(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(ORPHAN)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
