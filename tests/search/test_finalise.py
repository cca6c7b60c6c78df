"""From the best candidates to models that ship, and in which order they are tried."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.conf.compose import compose
from gnomon.devices import Protocol
from gnomon.errors import StudyError, TaskError
from gnomon.export import read_card
from gnomon.predictors import LatencyModel
from gnomon.records import Evaluation, Measurement, ModelRow
from gnomon.records.store import MeasurementStore
from gnomon.search import History, Problem
from gnomon.search.finalise import finalise, mark_front
from gnomon.search.history import Trial
from gnomon.search.objectives import ParetoObjective
from gnomon.search.ranking import rank
from gnomon.search.setup import Components, FinaliseSettings, StudySettings, build
from gnomon.search.trained_model import model_id, train_one
from gnomon.tasks import Evaluator
from tests.search.doubles import study_doubles as doubles

BEST_FIRST = ("3.1", "0.0", "1.1", "2.1", "3.0")
"""Keys of the candidates in the order in which they are tried."""


class GeneSum(LatencyModel):
    """Agrees with what the fake device measures."""

    def predict(self, genotypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1.0 + genotypes.sum(axis=1), np.full(len(genotypes), 0.1)


class HasWeights(Evaluator):
    def evaluate(self, architecture: Any, *, seed: int, progress: Any = None) -> Any:
        raise NotImplementedError("finalising evaluates nothing")

    def identity(self) -> dict[str, Any]:
        return {}


class Recorded(HasWeights):
    has_weights = False


def trial(number: int, quality: float, latency: float, violation: float = -0.1, key: str = "") -> Trial:
    genotype = np.array([int(g) for g in key.split(".")] if key else [number], dtype=np.int8)
    return Trial(number, genotype, "complete", quality, (-quality, latency), violation)


def history() -> History:
    """A front of four that latency and quality order alike, and one that is dominated."""
    points = {"3.1": (0.9, 5.0), "2.1": (0.7, 4.0), "1.1": (0.5, 3.0), "0.0": (0.1, 1.0), "3.0": (0.2, 4.5)}
    return History(tuple(trial(i, q, ms, key=key) for i, (key, (q, ms)) in enumerate(points.items())))


def make_problem(limit_ms: float | None = None) -> Problem:
    return Problem(doubles.TrainableSpace(), ParetoObjective(latency_ms=limit_ms), GeneSum(), limit_ms)


def make_components(folder: Path, **finalise_settings: Any) -> Any:
    return Components(
        config={},
        space=doubles.TrainableSpace(),
        task=doubles.CountingTask(),
        device=doubles.FakeDevice(),
        protocol=Protocol(),
        evaluator=HasWeights(),
        predictor=None,  # type: ignore[arg-type]
        strategy=None,  # type: ignore[arg-type]
        objective=ParetoObjective(),
        study=StudySettings("study", str(folder), "", str(folder / "measurements.sqlite")),
        finalise=FinaliseSettings(**{"budget": 1.0, "top_k": 2, "max_models": 4} | finalise_settings),
    )


@pytest.fixture(scope="module")
def trained_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first four candidates, trained for one epoch and exported: a second each."""
    folder = tmp_path_factory.mktemp("trained")
    components = make_components(folder)
    for key in BEST_FIRST[:4]:
        train_one(components, key)
    assert components.task.trained == 4
    return folder


@pytest.fixture
def trained(trained_models: Path, tmp_path: Path) -> Path:
    """A study folder in which they are finished, but not measured."""
    return Path(shutil.copytree(trained_models, tmp_path / "study"))


def keys_of(rows: list[ModelRow]) -> list[str]:
    return [row.key for row in rows]


# ---- Ranking ----------------------------------------------------------------------------------


def test_candidates_are_feasible_and_ordered_front_by_front() -> None:
    best, dominated = trial(0, 0.9, 2.0), trial(1, 0.8, 3.0)
    too_slow, fast = trial(2, 0.99, 1.0, violation=0.01), trial(3, 0.1, 1.0)
    pending = Trial(4, np.array([4], dtype=np.int8), "pending")
    copy = replace(best, number=5, duplicate_of=0)
    on_the_limit = replace(trial(6, 0.85, 2.5), violation=0.0)
    order = rank(History((dominated, too_slow, best, pending, fast, copy, on_the_limit)))
    assert [t.number for t in order] == [0, 3, 6, 1]
    assert rank(History((too_slow, pending))) == []
    assert rank(History(())) == []


def test_any_prefix_of_a_front_is_spread_over_it() -> None:
    """Eleven on a line, in scales that differ by a million: best quality, other end, middle, quarters."""
    line = [trial(i, quality=i * 1e-3, latency=i * 1e3) for i in range(11)]
    order = [t.number for t in rank(History(tuple(line)))]
    assert order[:3] == [10, 0, 5]
    assert set(order[3:5]) <= {2, 3, 7, 8}
    assert sorted(order) == list(range(11))


def test_equal_losses_are_ranked_once_each() -> None:
    assert sorted(t.number for t in rank(History(tuple(trial(i, 0.5, 1.0) for i in range(4))))) == [0, 1, 2, 3]


def test_the_order_that_these_tests_rely_on() -> None:
    space = doubles.TrainableSpace()
    assert tuple(space.keys(np.stack([t.genotype for t in rank(history())]))) == BEST_FIRST


# ---- What comes out ---------------------------------------------------------------------------


def test_the_very_file_is_trained_scored_exported_and_measured(tmp_path: Path) -> None:
    components = make_components(tmp_path, top_k=1)
    (row,) = finalise(make_problem(), components, history())
    folder = tmp_path / row.folder
    assert row.key == "3.1"
    assert row.accepted
    assert row.on_front
    assert row.trained
    assert row.folder == f"models/{model_id('3.1')}"
    assert components.task.trained == 1
    assert row.test == components.task.score(folder / row.files[0], "test")
    assert row.validation["quality"] == pytest.approx(
        components.task.score(folder / row.files[0], "validation")["accuracy"]
    )
    assert row.max_abs_error is not None
    assert 0 <= row.max_abs_error < 1e-3
    (measured,) = components.device.measured
    assert measured.graphs["main"].onnx_path == folder / "model.onnx"
    assert measured.graphs["main"].module is None
    store = MeasurementStore(components.study.store)
    setting = components.device.setting(measured.workload)
    assert store.get(setting.id, measured.id, components.protocol.id, "median") == row.measurement


def test_the_card_is_completed_by_verification(trained: Path) -> None:
    rows = finalise(make_problem(), make_components(trained), history())
    for row in rows:
        card = read_card(trained / row.folder)
        assert card.measurement == row.measurement is not None
        assert (card.predicted_ms, card.predicted_std_ms) == (row.predicted_ms, row.predicted_std_ms)
        assert card.test == row.test
        assert f"**{row.measurement.latency_ms:.4g} ms**" in (trained / row.folder / "card.md").read_text()


@pytest.mark.slow
def test_onnx_runtime_measures_what_ships(trained: Path) -> None:
    from gnomon.devices.onnxruntime import OnnxRuntimeDevice

    quick = Protocol(
        processes=2, min_processes=1, warmup_runs=3, min_runs=10, max_runs=50, time_cap_s=0.02, target_interval=0.5
    )
    components = replace(make_components(trained), device=OnnxRuntimeDevice(), protocol=quick)
    rows = finalise(make_problem(limit_ms=1000.0), components, history())
    assert rows
    for row in rows:
        assert row.accepted, row.reason
        assert row.measurement is not None
        assert 0 < row.measurement.latency_ms < 1000
        assert row.measurement.n_runs >= 10
        assert read_card(trained / row.folder).measurement == row.measurement


# ---- Who stays, who goes ----------------------------------------------------------------------


def test_it_stops_at_top_k(trained: Path) -> None:
    rows = finalise(make_problem(), make_components(trained, top_k=1), history())
    assert keys_of(rows) == ["3.1"]
    assert rows[0].on_front


def test_the_next_best_replaces_who_breaks_the_limit(trained: Path) -> None:
    components = make_components(trained, top_k=2)
    rows = finalise(make_problem(limit_ms=4.5), components, history())
    kept = [row.key for row in rows if row.accepted]
    assert keys_of(rows) == list(BEST_FIRST[:3])
    assert kept == ["0.0", "1.1"]
    assert rows[0].reason == "measured 5 ms, over the limit of 4.5 ms"
    assert not rows[0].on_front
    assert read_card(trained / rows[0].folder).measurement is not None
    assert components.task.trained == 0, "all these were finished"


def test_a_model_that_is_dominated_when_measured_does_not_count(trained: Path) -> None:
    """It is accepted, but not what ``top_k`` asks for."""
    components = make_components(trained, top_k=2)
    components.device.latency = lambda key: 9.0
    components = replace(components, evaluator=Recorded())
    rows = finalise(make_problem(), components, history())
    assert keys_of(rows) == list(BEST_FIRST[:4]), "up to max_models, as only the best can be on the front"
    assert all(row.accepted for row in rows)
    assert [row.key for row in rows if row.on_front] == ["3.1"]


def test_no_more_than_max_models(trained: Path) -> None:
    components = make_components(trained, top_k=2, max_models=3)
    rows = finalise(make_problem(limit_ms=0.5), components, history())
    assert keys_of(rows) == list(BEST_FIRST[:3])
    assert not any(row.accepted for row in rows)


def test_a_failed_measurement_costs_its_model(trained: Path) -> None:
    components = make_components(trained, top_k=1)
    components.device.failing = {"3.1"}
    rows = finalise(make_problem(), components, history())
    assert keys_of(rows) == ["3.1", "0.0"]
    assert rows[0].reason == "measurement failed: told to fail"
    assert not rows[0].accepted
    assert rows[1].on_front
    components.device.failing.clear()
    assert keys_of(finalise(make_problem(), components, history())) == ["3.1"], "failed measurements are repeated"


def test_nothing_feasible_nothing_trained(tmp_path: Path) -> None:
    components = make_components(tmp_path)
    assert finalise(make_problem(), components, History((trial(0, 0.9, 1.0, violation=0.2, key="3.1"),))) == []
    assert components.task.trained == 0


def row_of(key: str, quality: float, latency_ms: float, **more: Any) -> ModelRow:
    device, protocol = doubles.FakeDevice(), Protocol()
    device.latency = lambda name: latency_ms
    deployable = doubles.TrainableSpace().deployable({"width": 2, "kernel": 1})
    (measurement,) = device.measure([deployable], protocol)
    values = {"accepted": True, "measurement": measurement} | more
    return ModelRow(key, {}, {"quality": quality}, {}, latency_ms, 0.1, {}, **values)


def test_the_front_is_of_accepted_models_by_what_was_measured() -> None:
    rows = [
        row_of("best", 0.9, 5.0),
        row_of("fast", 0.5, 1.0),
        row_of("dominated", 0.4, 2.0, on_front=True),
        row_of("violator", 0.99, 0.5, accepted=False, on_front=True),
        row_of("twin", 0.5, 1.0),
        row_of("middle", 0.8, 2.0),
    ]
    marked = mark_front(rows)
    assert [row.key for row in marked if row.on_front] == ["best", "fast", "twin", "middle"]
    assert keys_of(marked) == keys_of(rows)
    assert mark_front([]) == []
    assert not any(row.on_front for row in mark_front([row_of("x", 0.5, 1.0, accepted=False)]))


# ---- Trainings that fail, stop and go on ------------------------------------------------------


def test_a_training_that_raises_costs_itself_and_is_tried_again(trained: Path) -> None:
    shutil.rmtree(trained / "models" / model_id("3.1"))
    components = make_components(trained, top_k=2)

    def raises(number: int) -> None:
        raise ZeroDivisionError("my training code is broken")

    components.task.before = raises
    rows = finalise(make_problem(), components, history())
    assert keys_of(rows) == list(BEST_FIRST[:3])
    assert rows[0].reason == "ZeroDivisionError: my training code is broken"
    assert not rows[0].accepted
    assert not rows[0].trained
    assert rows[0].measurement is None
    assert rows[0].folder == ""
    assert components.task.trained == 1
    again = make_components(trained, top_k=2)
    rows = finalise(make_problem(), again, history())
    assert again.task.trained == 1
    assert keys_of(rows) == list(BEST_FIRST[:2])
    assert rows[0].accepted


def test_finished_models_are_neither_trained_nor_measured_again(trained: Path) -> None:
    first, second = make_components(trained), make_components(trained)
    before = finalise(make_problem(), first, history())
    assert finalise(make_problem(), second, history()) == before
    assert first.task.trained == second.task.trained == 0
    assert len(first.device.measured) == 2
    assert second.device.measured == []


@pytest.mark.parametrize("change", ["budget", "seed"])
def test_another_recipe_is_another_model(change: str, trained: Path) -> None:
    old = {path: path.read_bytes() for path in trained.glob("models/*/weights.safetensors")}
    components = make_components(trained, top_k=1, budget=2.0 if change == "budget" else 1.0)
    if change == "seed":
        components = replace(components, study=replace(components.study, seed=1))
    (row,) = finalise(make_problem(), components, history())
    assert components.task.trained == 1
    weights = trained / row.folder / "weights.safetensors"
    assert weights.read_bytes() != old[weights]
    assert len(components.device.measured) == 1, "the old file's latency is not the new one's"
    finalise(make_problem(), components, history())
    assert components.task.trained == 1


def test_a_killed_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    from gnomon.tasks.training import Trainer

    undisturbed = make_components(tmp_path / "undisturbed", top_k=1, budget=2.0)
    expected = finalise(make_problem(), undisturbed, history())
    components = make_components(tmp_path / "disturbed", top_k=1, budget=2.0)
    with pytest.MonkeyPatch.context() as patch:
        run = Trainer.run

        def killed(self: Any, checkpoint: Path | None, progress: Any) -> Evaluation:
            def after_one_epoch(spent: float, metric: float) -> None:
                raise KeyboardInterrupt

            return run(self, checkpoint, after_one_epoch)

        patch.setattr(Trainer, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            finalise(make_problem(), components, history())
    folder = tmp_path / "disturbed" / "models" / model_id("3.1")
    assert list(folder.glob("checkpoint-*/training.json"))
    assert not (folder / "trained.json").exists()
    rows = finalise(make_problem(), components, history())
    assert rows[0].validation == expected[0].validation
    weights = [path.read_bytes() for path in sorted(tmp_path.glob("*/models/*/weights.safetensors"))]
    assert len(weights) == 2
    assert weights[0] == weights[1]


def test_a_full_disk_ends_it_with_a_clear_error_and_no_half_model(trained: Path) -> None:
    shutil.rmtree(trained / "models" / model_id("3.1"))
    components = make_components(trained)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    components.task.before = full
    with pytest.raises(StudyError, match="No space left on device") as caught:
        finalise(make_problem(), components, history())
    assert caught.value.field == "study.dir"
    assert not (trained / "models" / model_id("3.1") / "trained.json").exists(), "it would count as failed"
    components.task.before = lambda number: None
    assert keys_of(finalise(make_problem(), components, history())) == list(BEST_FIRST[:2])


def test_a_full_disk_during_export_is_not_the_models_fault(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(trained / "models" / model_id("3.1"))

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("gnomon.export.package.write_card", full)
    with pytest.raises(StudyError, match="No space left on device"):
        finalise(make_problem(), make_components(trained), history())
    assert not (trained / "models" / model_id("3.1") / "trained.json").exists()


def test_a_model_that_cannot_be_scored_costs_itself(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(trained / "models" / model_id("3.1"))
    components = make_components(trained, top_k=1)
    score: Callable[..., Any] = components.task.score

    def fails(model: Any, split: str) -> Any:
        raise TaskError("cannot run on inputs")

    monkeypatch.setattr(components.task, "score", fails)
    rows = finalise(make_problem(), components, history())
    assert rows[0].reason.startswith("TaskError: cannot run on inputs")
    assert rows[1].on_front
    monkeypatch.setattr(components.task, "score", score)


# ---- Recorded studies -------------------------------------------------------------------------


def test_recorded_studies_are_verified_and_train_nothing(tmp_path: Path) -> None:
    components = replace(make_components(tmp_path, top_k=3), evaluator=Recorded())
    rows = finalise(make_problem(limit_ms=4.5), components, history())
    assert components.task.trained == 0
    assert not (tmp_path / "models").exists()
    assert [(row.key, row.validation["quality"]) for row in rows if row.on_front] == [
        ("0.0", 0.1),
        ("1.1", 0.5),
        ("2.1", 0.7),
    ]
    assert all(not row.trained and row.files == () and row.folder == "" for row in rows)
    assert all(isinstance(row.measurement, Measurement) for row in rows)
    assert "over the limit" in rows[0].reason


# ---- Trainings in processes of their own ------------------------------------------------------


def build_with(space: str, folder: Path) -> Components:
    """From a config, as child processes do it."""
    words = [f"study.dir={folder}", "study.name=here", "study.workers=2", "finalise.budget=1", "finalise.top_k=2"]
    config = compose("search", ["task=digits", "plugins=[tests]", *words])
    config.space = {"_target_": f"{doubles.__name__}.{space}"}
    config.device = {"_target_": f"{doubles.__name__}.FakeDevice"}
    return build(config)


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    components = build_with("TrainableSpace", tmp_path)
    seen: list[tuple[str, int, int]] = []
    rows = finalise(make_problem(), components, history(), lambda *what: seen.append(what))
    assert keys_of(rows) == list(BEST_FIRST[:2])
    assert all(row.on_front for row in rows)
    assert [what for what in seen if what[0] == "training"] == [("training", done, 2) for done in range(3)]
    components = build_with("TrainableSpace", tmp_path / "alone")
    components = replace(components, study=replace(components.study, workers=1))
    alone = finalise(make_problem(), components, history())
    assert [row.test for row in alone] == [row.test for row in rows]


@pytest.mark.slow
def test_a_training_process_that_dies_is_said(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"a training process died.*study\.workers=1"):
        finalise(make_problem(), build_with("DeadlySpace", tmp_path), history())
    assert not list(tmp_path.glob("**/trained.json"))
