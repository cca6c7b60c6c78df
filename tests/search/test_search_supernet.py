"""A search whose evaluations share the weights of one supernet."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gnomon.conf.compose import compose
from gnomon.errors import TaskError
from gnomon.records import StudySummary
from gnomon.reports import write_report
from gnomon.reports.captions import caption
from gnomon.search.study import run_search
from gnomon.search.summary import SUMMARY_FILE, read_summary
from gnomon.tasks.supernet import SupernetTrainer
from tests.search.doubles import study_doubles as doubles

OVERRIDES = [
    "experiment=quick",
    "quality=supernet",
    "quality.epochs=2",
    "quality.rule.random=0",
    "space.blocks=2",
    "space.width=0.25",
    "predictor=macs",
    "strategy=random",
    "study.references=4",
    "study.refinements=0",
    "study.evaluations=4",
    "study.batch=2",
    "study.name=shared",
    "finalise.enabled=false",
]


class Watching(doubles.Silence):
    def __init__(self) -> None:
        super().__init__()
        self.epochs: list[float] = []

    def preparation(self, spent: float, metric: float) -> None:
        self.epochs.append(spent)


class KilledAfterAnEpoch(doubles.Silence):
    def preparation(self, spent: float, metric: float) -> None:
        raise KeyboardInterrupt


def search(folder: Path, display: doubles.Silence, *words: str) -> StudySummary:
    return run_search(compose("search", [*OVERRIDES, f"study.dir={folder}", *words]), display)[0]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies with one that was killed while its supernet was trained, and went on."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.raises(KeyboardInterrupt):
        search(folder, KilledAfterAnEpoch())
    display = Watching()
    search(folder, display)
    assert display.epochs == [2.0], "the first epoch was trained before the kill"
    assert any("supernet" in phase for phase in display.phases)
    return folder


@pytest.fixture
def summary(runs: Path) -> StudySummary:
    return read_summary(runs / "shared" / SUMMARY_FILE)


def test_the_study_tells_how_its_weights_were_trained(summary: StudySummary) -> None:
    shared = summary.shared_training
    assert shared is not None
    assert (shared.rule, shared.epochs) == ("sandwich", 2)
    assert all(len(curve) == 2 for curve in shared.curves.values())
    assert {row.decision for row in shared.choices} == {f"block{b}.{d}" for b in (1, 2) for d in DECISIONS}
    assert summary.spend["preparing_s"] == pytest.approx(shared.seconds)
    assert summary.spend["evaluations"] == 4
    assert StudySummary.from_json(summary.to_json()) == summary


DECISIONS = ("op", "kernel", "se", "skip", "filters", "layers")


def test_the_report_shows_the_training_and_its_fairness(runs: Path, summary: StudySummary) -> None:
    page = write_report(runs / "shared").read_text()
    assert 'id="shared"' in page
    assert "block1.kernel" in page
    assert (runs / "shared" / "plots" / "shared_training.png").is_file()
    assert "with the shared weights. " in page


@pytest.mark.parametrize(("epochs", "text"), [("1", "tuned for 1 epoch. "), ("0.5", "tuned for 0.5 epochs. ")])
def test_the_caption_says_that_candidates_were_tuned(summary: StudySummary, epochs: str, text: str) -> None:
    config = summary.config.replace("tune_epochs: 0\n", f"tune_epochs: {epochs}\n")
    tuned = replace(summary, config=config)
    assert f"with the shared weights, each {text}" in caption(tuned, "front")


def test_a_study_that_goes_on_takes_the_finished_supernet(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def not_again(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(SupernetTrainer, "run", not_again)
    display = Watching()
    summary = search(runs, display, "study.evaluations=5")
    assert not display.epochs
    assert summary.spend["evaluations"] == 5
    assert summary.shared_training is not None


def test_another_rule_is_another_study(runs: Path) -> None:
    words = ["quality.rule.random=1", "study.name=null"]
    first, second = (compose("search", [*OVERRIDES, f"study.dir={runs}", *more]) for more in (words[1:], words))
    from gnomon.search.setup import build

    assert build(first).study.name != build(second).study.name
    assert build(first).identity != build(second).identity


def test_a_supernet_of_another_rule_in_the_folder_is_refused(runs: Path) -> None:
    from gnomon.search.setup import build

    components = build(compose("search", [*OVERRIDES, f"study.dir={runs}", "quality.rule.random=1"]))
    with pytest.raises(TaskError, match="rule differ"):
        components.evaluator.prepare(components.study.path, seed=0)


def test_the_record_beside_the_weights_is_json(runs: Path) -> None:
    record = json.loads((runs / "shared" / "supernet" / "supernet.json").read_text())
    assert record["schema"] == "gnomon.shared_training/1"


@pytest.mark.slow
def test_two_workers_share_one_supernet_and_models_are_trained_from_scratch(tmp_path: Path) -> None:
    words = ["study.workers=2", "finalise.enabled=true", "finalise.top_k=1", "finalise.max_models=1"]
    summary = search(tmp_path, doubles.Silence(), *words, "finalise.budget=1")
    assert summary.spend["evaluations"] == 4
    assert summary.spend["failures"] == 0
    (model,) = summary.models
    assert model.trained
    assert model.training_s > 0
    assert (tmp_path / "shared" / model.folder / model.files[0]).is_file()


@pytest.mark.parametrize("option", ["supernet", "supernet_single_path", "supernet_progressive"])
def test_every_rule_is_an_option(option: str, tmp_path: Path) -> None:
    from gnomon.search.setup import build

    words = ["task=digits", f"quality={option}", f"study.dir={tmp_path}"]
    evaluator = build(compose("search", words)).evaluator
    assert evaluator.identity()["rule"]["name"] == option.removeprefix("supernet_").replace("supernet", "sandwich")
