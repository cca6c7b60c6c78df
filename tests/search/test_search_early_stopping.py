"""A search whose trainings are stopped early, interrupted and not."""

from __future__ import annotations

from pathlib import Path

import pytest

from gnomon.conf.compose import compose
from gnomon.records import StudySummary
from gnomon.search.loop import LoopEvent
from gnomon.search.study import run_search
from gnomon.search.summary import SUMMARY_FILE, read_summary
from tests.search.doubles import study_doubles as doubles

OVERRIDES = [
    "experiment=quick",
    "quality=train_early_stopping",
    "quality.epochs=3",
    "quality.burn_in=8",
    "quality.confidence=0.5",
    "quality.audit=0.3",
    "quality.regressor._target_=gnomon.predictors.curves.LeastSquares",
    "space.blocks=[{filters:8,layers:1,stride:2}]",
    "predictor=macs",
    "strategy=random",
    "objective.metrics=[quality]",
    "study.references=4",
    "study.refinements=0",
    "study.evaluations=16",
    "study.batch=4",
    "finalise.enabled=false",
]


class KilledAt12(doubles.Silence):
    def on_event(self, event: LoopEvent) -> None:
        if event.counts.evaluated == 12:
            raise KeyboardInterrupt


def search(folder: Path, display: doubles.Silence, name: str) -> StudySummary:
    return run_search(compose("search", [*OVERRIDES, f"study.dir={folder}", f"study.name={name}"]), display)[0]


@pytest.mark.slow
def test_a_search_stops_trainings_and_goes_on_as_it_would_have(tmp_path: Path) -> None:
    undisturbed = search(tmp_path, doubles.Silence(), "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, KilledAt12(), "interrupted")
    interrupted = search(tmp_path, doubles.Silence(), "interrupted")
    assert [(t.key, t.quality, t.stopped_at) for t in interrupted.trials] == [
        (t.key, t.quality, t.stopped_at) for t in undisturbed.trials
    ]
    stopped = [t for t in undisturbed.trials if t.stopped_at is not None]
    assert stopped
    assert all(t.number >= 8 and t.stopped_at < 3 and not t.on_front for t in stopped)
    notes = read_summary(tmp_path / "undisturbed" / SUMMARY_FILE).notes
    assert any(f"{len(stopped)} of 16 trainings were stopped early" in note for note in notes)
    assert any(note.startswith("False stops") for note in notes)
