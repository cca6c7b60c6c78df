"""``strategy=controller`` from configs to a ledger: a search that is interrupted ends as it would have."""

from pathlib import Path

import pytest

from gnomon.conf.compose import compose
from gnomon.records import StudySummary
from gnomon.search.loop import LoopEvent
from gnomon.search.study import run_search
from tests.search.doubles import study_doubles as doubles

OVERRIDES = [
    "strategy=controller",
    "strategy.batch=4",
    "strategy.hidden=8",
    "objective=mnasnet_soft",
    "objective.latency=60%",
    "study.evaluations=20",
    "study.batch=4",
    "finalise.enabled=false",
]


class KilledAt9(doubles.Silence):
    def on_event(self, event: LoopEvent) -> None:
        if event.counts.evaluated == 9:
            raise KeyboardInterrupt


def search(folder: Path, display: doubles.Silence, name: str) -> StudySummary:
    table = folder / "table.npz"
    if not table.exists():
        doubles.write_table(table)
    words = [*doubles.recorded_overrides(table, folder), *OVERRIDES, f"study.name={name}"]
    return run_search(compose("search", words), display)[0]


@pytest.mark.slow
def test_an_interrupted_controller_goes_on_as_it_would_have(tmp_path: Path) -> None:
    undisturbed = search(tmp_path, doubles.Silence(), "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, KilledAt9(), "interrupted")
    interrupted = search(tmp_path, doubles.Silence(), "interrupted")
    assert [t.key for t in interrupted.trials] == [t.key for t in undisturbed.trials]
    assert sum(t.duplicate_of is None for t in undisturbed.trials) == 20
