"""A whole search over made-up tables: twice, interrupted, moved, refused, on another device."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gnomon.conf.compose import compose
from gnomon.devices.recorded import RecordedDevice
from gnomon.errors import ConfigError, GnomonError, InfeasibleError, StudyError
from gnomon.records import Evaluation, StudySummary
from gnomon.search.study import open_study, refresh_summary, resume_config, run_search
from gnomon.search.summary import SUMMARY_FILE, read_summary
from gnomon.tasks.recorded import RecordedEvaluator
from tests.search.doubles import study_doubles as doubles

Search = Callable[..., StudySummary]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return doubles.write_table(tmp_path_factory.mktemp("table") / "table.npz")


@pytest.fixture
def overrides(table: Path, tmp_path: Path) -> list[str]:
    return doubles.recorded_overrides(table, tmp_path / "runs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "here"


@pytest.fixture(scope="module")
def ended(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of studies with one that is finished."""
    folder = tmp_path_factory.mktemp("ended")
    run_search(compose("search", doubles.recorded_overrides(table, folder)), doubles.Silence())
    return folder


@pytest.fixture
def finished(ended: Path, folder: Path) -> StudySummary:
    """A finished study in ``folder``, as if it had been run there."""
    shutil.copytree(ended, folder.parent)
    return read_summary(folder / SUMMARY_FILE)


@pytest.fixture
def search(overrides: list[str]) -> Search:
    def run(*words: str, display: doubles.Silence | None = None) -> StudySummary:
        return run_search(compose("search", [*overrides, *words]), display or doubles.Silence())[0]

    return run


def resume(folder: Path, *words: str, display: doubles.Silence | None = None) -> StudySummary:
    config = resume_config(folder, OmegaConf.from_dotlist(list(words)) if words else None)
    return run_search(config, display or doubles.Silence())[0]


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys in the order in which they are evaluated."""
    keys: list[str] = []
    evaluate = RecordedEvaluator.evaluate

    def counting(self: Any, architecture: Any, **more: Any) -> Evaluation:
        keys.append(architecture.key)
        return evaluate(self, architecture, **more)

    monkeypatch.setattr(RecordedEvaluator, "evaluate", counting)
    return keys


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what the device measures."""
    names: list[str] = []
    measure = RecordedDevice.measure

    def counting(self: Any, deployables: Any, protocol: Any, *, seed: int = 0) -> Any:
        names.extend(d.name for d in deployables)
        return measure(self, deployables, protocol, seed=seed)

    monkeypatch.setattr(RecordedDevice, "measure", counting)
    return names


def interrupt_at(patch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C during the ``number``-th evaluation."""
    evaluate, count = RecordedEvaluator.evaluate, 0

    def interrupted(self: Any, architecture: Any, **more: Any) -> Evaluation:
        nonlocal count
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return evaluate(self, architecture, **more)

    patch.setattr(RecordedEvaluator, "evaluate", interrupted)


def interrupted_search(search: Search, number: int, *words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(patch, number)
        with pytest.raises(KeyboardInterrupt):
            search(*words)


def without_times(summary: StudySummary) -> StudySummary:
    spend = {key: value for key, value in summary.spend.items() if not key.endswith("_s")}
    return replace(summary, created="", spend=spend)


# ---- From start to end ------------------------------------------------------------------------


def test_a_search_ends_with_a_verified_front(search: Search, folder: Path, evaluated: list[str]) -> None:
    display = doubles.Silence()
    summary = search("objective.latency_ms=2", display=display)
    assert summary.finished
    assert summary.recorded
    assert summary.limit_ms == 2.0
    assert len(evaluated) == len(set(evaluated)) == summary.spend["evaluations"] == 7
    assert read_summary(folder / SUMMARY_FILE) == summary
    assert [phase.split()[0] for phase in display.phases] == ["measuring", "searching", "finalising"]
    assert all(model.measurement.latency_ms <= 2.0 for model in summary.models if model.accepted)
    assert any(model.on_front for model in summary.models)


def test_the_same_search_again_returns_the_same_and_repeats_nothing(
    search: Search, finished: StudySummary, evaluated: list[str], measured: list[str]
) -> None:
    display = doubles.Silence()
    second = search(display=display)
    assert without_times(second) == without_times(replace(finished, config=second.config))
    assert evaluated == measured == []
    assert not any("measuring" in phase for phase in display.phases)
    assert second.spend["wall_s"] > finished.spend["wall_s"], "time adds up"


@pytest.mark.slow
def test_the_seed_decides_what_is_found(search: Search, finished: StudySummary, tmp_path: Path) -> None:
    same = search(f"study.dir={tmp_path}/elsewhere")
    assert [t.key for t in finished.trials] == [t.key for t in same.trials]
    assert [m.key for m in finished.models] == [m.key for m in same.models]
    other = search(f"study.dir={tmp_path}/another", "study.seed=1")
    assert [t.key for t in finished.trials] != [t.key for t in other.trials]


def test_an_interrupted_search_goes_on_and_ends_like_an_undisturbed_one(
    search: Search, folder: Path, ended: Path
) -> None:
    undisturbed = read_summary(ended / "here" / SUMMARY_FILE)
    interrupted_search(search, 5)
    written = read_summary(folder / SUMMARY_FILE)
    assert not written.finished
    assert written.models == ()
    summary = resume(folder)
    assert [t.key for t in summary.trials] == [t.key for t in undisturbed.trials]
    assert [(m.key, m.on_front) for m in summary.models] == [(m.key, m.on_front) for m in undisturbed.models]
    assert summary.finished


def test_an_infeasible_limit_ends_it_before_anything_is_evaluated(
    search: Search, folder: Path, evaluated: list[str]
) -> None:
    with pytest.raises(InfeasibleError, match="no architecture of nasbench201"):
        search("objective.latency_ms=0.01")
    assert evaluated == []
    assert open_study(folder).ledger.history().trials == ()


def test_nothing_is_finalised_where_that_is_off(search: Search) -> None:
    display = doubles.Silence()
    summary = search("finalise.enabled=false", display=display)
    assert summary.finished
    assert summary.models == ()
    assert not any("finalising" in phase for phase in display.phases)


# ---- Refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "names"),
    [("strategy=tpe", "strategy"), ("objective.latency_ms=2", "objective"), ("device.column=other_ms", "device")],
)
def test_another_search_under_the_same_name_changes_nothing(
    search: Search, finished: StudySummary, folder: Path, word: str, names: str
) -> None:
    before = {path.name: path.read_bytes() for path in (folder / "config.yaml", folder / SUMMARY_FILE)}
    with pytest.raises(StudyError, match=rf"searches something else.*{names}"):
        search(word, "study.evaluations=9")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert resume(folder, "study.evaluations=9").spend["evaluations"] == 9


@pytest.mark.parametrize(
    "word",
    [
        "study.evaluations=0",
        "finalise.budget=-1",
        "study.evalutions=3",
        "study.evaluations=many",
    ],
)
def test_an_impossible_change_leaves_the_study_as_it_was(finished: StudySummary, folder: Path, word: str) -> None:
    before = (folder / "config.yaml").read_bytes()
    with pytest.raises(GnomonError):
        resume(folder, word)
    assert (folder / "config.yaml").read_bytes() == before


# ---- Going on ---------------------------------------------------------------------------------


def test_more_evaluations_go_on_with_the_same_references(
    finished: StudySummary, folder: Path, evaluated: list[str], measured: list[str]
) -> None:
    summary = resume(folder, "study.evaluations=9")
    assert len(evaluated) == 2
    assert len({t.key for t in summary.trials}) == summary.spend["evaluations"] == 9
    assert summary.references == finished.references
    assert set(measured) <= {m.key for m in summary.models} - {m.key for m in finished.models}
    assert summary.trials[:7] == tuple(
        replace(t, on_front=n.on_front) for t, n in zip(finished.trials, summary.trials, strict=False)
    )
    assert resume_config(folder).study.evaluations == 9


def test_only_study_and_finalise_can_change(finished: StudySummary, folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"strategy.*cannot change.*study, finalise"):
        resume(folder, "strategy=random")


def test_a_folder_without_a_study_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        resume_config(tmp_path)
    with pytest.raises(StudyError, match="holds no study"):
        open_study(tmp_path)
    (tmp_path / "config.yaml").write_text("just: a file")
    with pytest.raises(StudyError, match="not the config of a study"):
        open_study(tmp_path)


def test_a_study_that_was_moved_goes_on_where_it_is(
    finished: StudySummary, folder: Path, tmp_path: Path, evaluated: list[str]
) -> None:
    moved = tmp_path / "archive" / "here"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    summary = resume(moved, "study.evaluations=9")
    assert len(evaluated) == 2
    assert summary.spend["evaluations"] == 9
    assert not folder.exists()


def test_a_study_whose_folder_was_renamed_goes_on(finished: StudySummary, folder: Path, evaluated: list[str]) -> None:
    renamed = folder.rename(folder.parent / "there")
    assert resume(renamed, "study.evaluations=9").spend["evaluations"] == 9
    assert len(evaluated) == 2, "an evaluation was lost or repeated"


# ---- Another device ---------------------------------------------------------------------------


@pytest.fixture
def elsewhere() -> Any:
    """Inside, the same device is found on other hardware."""
    setting = RecordedDevice.setting

    def other(self: Any, workload: Any) -> Any:
        return replace(setting(self, workload), hardware="another board")

    with pytest.MonkeyPatch.context() as patch:
        yield lambda: patch.setattr(RecordedDevice, "setting", other)


def test_another_device_evaluates_and_does_not_finalise(
    search: Search, folder: Path, elsewhere: Callable[[], None], measured: list[str]
) -> None:
    interrupted_search(search, 5)
    references = len(measured)
    elsewhere()
    display = doubles.Silence()
    summary = resume(folder, display=display)
    assert summary.spend["evaluations"] == 7
    assert summary.models == ()
    assert len(measured) == references
    (said,) = (phase for phase in display.phases if "finalis" in phase)
    assert said.startswith("not finalising here: this study is for recorded_latency_ms on latency_ms")
    assert "another board" in said
    assert summary.setting.hardware == "latency_ms", "the study's own"


def test_another_device_keeps_the_models_that_are_there(
    finished: StudySummary, folder: Path, elsewhere: Callable[[], None]
) -> None:
    elsewhere()
    resume(folder)
    assert read_summary(folder / SUMMARY_FILE).models == finished.models != ()


# ---- Looking at a study that runs -------------------------------------------------------------


def test_a_summary_is_refreshed_while_trials_are_pending(search: Search, folder: Path) -> None:
    interrupted_search(search, 5)
    view = open_study(folder)
    claim = view.ledger.claim()
    assert claim is not None
    refresh_summary(folder)
    summary = read_summary(folder / SUMMARY_FILE)
    states = [t.state for t in summary.trials]
    assert (states.count("complete"), states.count("running"), states.count("waiting")) == (4, 1, 1)
    assert all(t.quality is None and t.values == () for t in summary.trials if t.state != "complete")
    assert summary.spend["evaluations"] == 4
    assert not summary.finished
    assert summary.references
    view.ledger.give_back(claim)
    assert resume(folder).spend["evaluations"] == 7


def test_refreshing_a_finished_study_changes_nothing(finished: StudySummary, folder: Path) -> None:
    before = (folder / SUMMARY_FILE).read_bytes()
    refresh_summary(folder)
    assert (folder / SUMMARY_FILE).read_bytes() == before


def test_models_of_the_last_finish_are_there_while_it_goes_on(
    search: Search, finished: StudySummary, folder: Path
) -> None:
    interrupted_search(search, 3, "study.evaluations=11")
    refresh_summary(folder)
    summary = read_summary(folder / SUMMARY_FILE)
    assert not summary.finished
    assert summary.spend["evaluations"] == 9
    assert summary.models == finished.models != ()


def test_nothing_to_refresh_before_references_are_measured(
    search: Search, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unplugged(*arguments: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(RecordedDevice, "measure", unplugged)
    with pytest.raises(KeyboardInterrupt):
        search()
    with pytest.raises(StudyError, match="nothing to report yet"):
        refresh_summary(folder)


def test_looking_needs_neither_tables_nor_device(finished: StudySummary, folder: Path, tmp_path: Path) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    config.device.table.path = config.quality.table.path = str(tmp_path / "gone.npz")
    OmegaConf.save(config, folder / "config.yaml")
    view = open_study(folder)
    assert view.ledger.counts().evaluated == 7
    assert view.problem is not None
    refresh_summary(folder)
