"""What is said of a study while it runs, and when it is over."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gnomon.conf.compose import compose
from gnomon.devices.recorded import RecordedDevice
from gnomon.records import StudySummary
from gnomon.search import Proposal
from gnomon.search.status import StudyStatus, study_status
from gnomon.search.study import evaluation_costs_s, open_study, refresh_summary, resume_config, run_search
from gnomon.search.study_view import StudyView
from gnomon.search.summary import SUMMARY_FILE, read_summary
from gnomon.tasks.recorded import RecordedEvaluator
from tests.search.doubles import study_doubles as doubles

COST_S = 0.02


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.write_table(tmp_path_factory.mktemp("table") / "table.npz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "here"


def run(table: Path, folder: Path, *words: str) -> StudySummary:
    words = ("objective.latency_ms=2", f"quality.cost_s={COST_S}", *words)
    return run_search(
        compose("search", [*doubles.recorded_overrides(table, folder.parent), *words]), doubles.Silence()
    )[0]


def interrupted(table: Path, folder: Path, after: int, *words: str) -> None:
    evaluate, count = RecordedEvaluator.evaluate, 0

    def stops(self: Any, architecture: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise KeyboardInterrupt
        return evaluate(self, architecture, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedEvaluator, "evaluate", stops)
        with pytest.raises(KeyboardInterrupt):
            run(table, folder, *words)


@pytest.fixture(scope="module")
def stopped(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was interrupted after 4 of 7 evaluations."""
    folder = tmp_path_factory.mktemp("stopped") / "here"
    interrupted(table, folder, 4)
    return folder


@pytest.fixture
def searching(stopped: Path, folder: Path) -> Path:
    """The same in a folder of its own."""
    return Path(shutil.copytree(stopped, folder))


def copy_of_the_first(view: StudyView) -> None:
    """The strategy proposes again what it has proposed."""
    assert view.problem is not None
    history = view.ledger.history()
    with view.ledger.lease().held() as mine:
        assert mine
        assert view.ledger.commit(Proposal(history.genotypes[:1]), view.problem, history) == 0


# ---- Status -----------------------------------------------------------------------------------


def test_a_study_that_measures(table: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unplugged(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(RecordedDevice, "measure", unplugged)
    with pytest.raises(KeyboardInterrupt):
        run(table, folder)
    status = study_status(folder)
    assert status.phase == "measuring references"
    assert (status.limit_ms, status.limit_text) == (None, "2 ms")
    assert (status.left_s, status.best_quality, status.best_latency_ms) == (None, None, None)
    assert (status.target, status.counts.spent, status.models) == (7, 0, 0)


def test_a_study_that_searches(searching: Path, folder: Path) -> None:
    status = study_status(folder)
    ledger = open_study(folder).ledger
    assert status.phase == "searching"
    assert (status.counts.evaluated, status.counts.waiting, status.counts.running) == (4, 2, 0)
    assert status.limit_ms == 2.0
    assert status.evaluating_s == pytest.approx(sum(evaluation_costs_s(ledger.frozen_trials())))
    assert status.evaluating_s >= 4 * COST_S
    assert status.left_s == pytest.approx(status.evaluating_s / 4 * 3)
    feasible = [t for t in ledger.history().evaluated if t.violation <= 0]
    assert status.best_quality == max((t.quality for t in feasible), default=None)
    assert StudyStatus.from_json(status.to_json()) == status


def test_two_workers_need_half_the_time(searching: Path, folder: Path) -> None:
    alone = study_status(folder).left_s
    OmegaConf.save(resume_config(folder, OmegaConf.from_dotlist(["study.workers=2"])), folder / "config.yaml")
    assert alone is not None
    assert study_status(folder).left_s == pytest.approx(alone / 2)


def test_copies_cost_nothing(searching: Path, folder: Path) -> None:
    before = study_status(folder)
    copy_of_the_first(open_study(folder))
    after = study_status(folder)
    assert after.counts.duplicates == 1
    assert after.counts.evaluated == before.counts.evaluated
    assert (after.evaluating_s, after.left_s) == (before.evaluating_s, before.left_s)
    refresh_summary(folder)
    summary = read_summary(folder / SUMMARY_FILE)
    assert summary.spend["duplicates"] == 1
    assert summary.spend["evaluating_s"] == pytest.approx(before.evaluating_s)
    (copy,) = (t for t in summary.trials if t.duplicate_of is not None)
    assert copy.duplicate_of == summary.trials[0].number
    assert copy.cost_s == 0.0
    assert copy.quality == summary.trials[0].quality
    assert sum(t.cost_s for t in summary.trials) == pytest.approx(before.evaluating_s)
    assert len(summary.hypervolume) <= 4


def test_the_phases_after_the_search(table: Path, folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gnomon.search.study.finalise", lambda *more: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(table, folder)
    assert study_status(folder).phase == "finalising"
    OmegaConf.save(resume_config(folder, OmegaConf.from_dotlist(["finalise.enabled=false"])), folder / "config.yaml")
    assert study_status(folder).phase == "searched"
    run(table, folder)
    status = study_status(folder)
    assert status.phase == "finished"
    assert status.left_s == 0.0


def test_a_finished_study_that_is_to_go_on_searches_again(table: Path, folder: Path) -> None:
    run(table, folder, "finalise.enabled=false")
    assert study_status(folder).phase == "finished"
    changed = resume_config(folder, OmegaConf.from_dotlist(["study.evaluations=9"]))
    OmegaConf.save(changed, folder / "config.yaml")  # killed before anything else was written
    status = study_status(folder)
    assert (status.phase, status.target) == ("searching", 9)
    assert status.left_s == pytest.approx(status.evaluating_s / 7 * 2)


# ---- Summary ----------------------------------------------------------------------------------


def test_the_summary_agrees_with_itself(table: Path, folder: Path) -> None:
    summary = run(table, folder, "study.evaluations=9")
    assert StudySummary.from_json(summary.to_json()) == summary
    assert summary.limit_text == "2 ms"
    complete = [t for t in summary.trials if t.state == "complete" and t.duplicate_of is None]
    assert len(complete) == summary.spend["evaluations"] == 9
    feasible = [t for t in complete if t.feasible]
    assert feasible, "or this test tests nothing"
    for t in feasible:
        beaten = any(
            o.quality >= t.quality and o.latency_ms <= t.latency_ms and o.values != t.values  # type: ignore[operator]
            for o in feasible
        )
        assert t.on_front is not beaten
    assert not any(t.on_front for t in summary.trials if not t.feasible)
    shares = [share for _, share in summary.hypervolume]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert [n for n, _ in summary.hypervolume] == list(range(1, 10))
    assert sum(summary.importance.values()) == pytest.approx(1.0)
    assert len(summary.references) == 10
    assert summary.references[0].name == "resnet_like"


def test_a_relative_limit_says_of_what(table: Path, folder: Path) -> None:
    summary = run(
        table, folder, "objective.latency_ms=null", "objective.latency=80%", "objective.reference=all_conv1x1"
    )
    (reference,) = (r for r in summary.references if r.name == "all_conv1x1")
    assert summary.limit_ms == pytest.approx(0.8 * reference.measured_ms)
    assert summary.limit_text == f"80% of all_conv1x1 ({reference.measured_ms:.4g} ms measured here)"
    assert study_status(folder).limit_text == f"80% of all_conv1x1: {summary.limit_ms:.4g} ms"


def test_a_failed_evaluation_is_shown_with_its_error(table: Path, folder: Path) -> None:
    evaluate, failed = RecordedEvaluator.evaluate, []

    def fails_once(self: Any, architecture: Any, **more: Any) -> Any:
        if not failed:
            failed.append(architecture.key)
            raise ZeroDivisionError("my training code is broken")
        return evaluate(self, architecture, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordedEvaluator, "evaluate", fails_once)
        summary = run(table, folder, "finalise.enabled=false")
    (trial,) = (t for t in summary.trials if t.state == "failed")
    assert trial.key == failed[0]
    assert trial.error == "ZeroDivisionError: my training code is broken"
    assert (trial.quality, trial.values, trial.cost_s, trial.on_front) == (None, (), 0.0, False)
    assert (summary.spend["failures"], summary.spend["evaluations"]) == (1, 6)
    assert "my training code is broken" in (folder / "log.txt").read_text(), "the traceback is in the log"
