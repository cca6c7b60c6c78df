"""From the best candidates to models that ship: train fully, export, verify that very file."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from omegaconf import OmegaConf

from ..errors import StudyError, TaskError
from ..records import Evaluation, Measurement, ModelRow
from ..records.store import MeasurementStore
from ..schema import Record, read_json, write_json
from ..search_spaces import Deployable
from .deployment import deploy, is_rounded
from .history import History, Trial
from .log_file import log_file
from .loop import evaluation_seed
from .measuring import measure_all
from .pareto import non_dominated
from .problem import Problem
from .ranking import Verified, by_chance, rank, rank_again
from .setup import Components, build
from .workers import die_with

if TYPE_CHECKING:
    from ..export import ModelCard

log = logging.getLogger(__name__)

OnModel = Callable[[str, int, int], None]
"""Called with (what is going on, models done, models begun)."""

Relearn = Callable[[Mapping[str, float]], Problem]
"""The problem as it looks with further latencies in ms by architecture key."""

OnRows = Callable[[list[ModelRow]], object]
"""Called with all models so far, whenever more are verified."""


@dataclass(frozen=True)
class TrainedModel(Record):
    """A fully trained and exported candidate, before verification; its file is the commit point.

    Args:
        recipe: Digest of what the training depends on (see :func:`recipe`); a model of another
            recipe is not this one.
        validation, test: Of the model as it runs on the device, quantised if it quantises.
        fp32: Metrics by split before that, where the device changes answers; else empty.
        files: In the model's folder; the first is what the device was given.
        error: Why there is no model, or empty. Tried again by the next run.
    """

    SCHEMA: ClassVar[str] = "gnomon.trained_model/1"

    key: str
    recipe: str = ""
    validation: Evaluation | None = None
    test: Mapping[str, float] = field(default_factory=dict)
    fp32: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    max_abs_error: float | None = None
    error: str = ""


def recipe(components: Components) -> str:
    """Digest of what a full training depends on besides the architecture."""
    parts: list[Any] = [components.finalise.budget, components.study.seed]
    parts += [components.task.identity(), components.space.spec()]
    if is_rounded(components.device):
        setting = components.device.setting(components.space.workload)
        parts += [setting.device, setting.precision, setting.options]
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def model_id(key: str) -> str:
    """Folder name of an architecture's model."""
    return sha256(key.encode()).hexdigest()[:8]


def finalise(
    problem: Problem,
    components: Components,
    history: History,
    on_model: OnModel | None = None,
    on_rows: OnRows | None = None,
    relearn: Relearn | None = None,
) -> list[ModelRow]:
    """Trains, exports and verifies candidates until ``top_k`` stand on the verified front.

    A model is dropped if its training or export fails, or the measured latency of its file breaks
    the limit; another candidate takes its place, up to ``max_models``. With ``relearn``, what was
    measured teaches the predictor, and of the candidates left the likeliest to join the front come
    first. Resumable: trainings
    go on from their checkpoints, finished models and stored measurements are reused.
    """
    settings, candidates = components.finalise, rank(history)
    searched = {components.space.keys(t.genotype[None])[0]: float(t.quality or 0.0) for t in candidates}
    rows: list[ModelRow] = []
    while candidates and len(rows) < settings.max_models:
        missing = settings.top_k - sum(row.on_front for row in rows)
        if missing <= 0:
            break
        wanted = max(missing, components.study.workers)  # leave no worker idle
        batch = candidates[: min(wanted, settings.max_models - len(rows))]
        if components.evaluator.has_weights:
            _train_all(components, [components.space.keys(t.genotype[None])[0] for t in batch], on_model)
        rows = mark_front(rows + _verify(problem, components, batch, on_model))
        if on_rows is not None:
            on_rows(rows)
        candidates = candidates[len(batch) :]
        if relearn is not None:
            problem_now = relearn(_measured(rows))
            candidates = by_chance(problem_now, rank_again(problem_now, candidates), _verified(rows, searched))
    return rows


def mark_front(rows: Sequence[ModelRow]) -> list[ModelRow]:
    """Sets ``on_front``: accepted models that no other beats in validation and measured latency."""
    accepted = [row for row in rows if row.accepted and row.measurement is not None]
    points = np.array([[-_quality(row), row.measurement.latency_ms] for row in accepted if row.measurement])
    front = {row.key for row, on in zip(accepted, non_dominated(points), strict=True) if on} if accepted else set()
    return [replace(row, on_front=row.key in front) for row in rows]


def _measured(rows: Sequence[ModelRow]) -> dict[str, float]:
    measured = ((row.key, row.measurement) for row in rows if row.measurement is not None)
    return {key: measurement.latency_ms for key, measurement in measured if measurement.verdict != "failed"}


def _verified(rows: Sequence[ModelRow], searched: Mapping[str, float]) -> list[Verified]:
    return [
        Verified(searched[row.key], _quality(row), row.measurement.latency_ms)
        for row in rows
        if row.accepted and row.measurement is not None
    ]


def _quality(row: ModelRow) -> float:
    return row.validation["quality"]


# ---- Training ---------------------------------------------------------------------------------


def _train_all(components: Components, keys: Sequence[str], on_model: OnModel | None) -> None:
    """Trains what is not trained yet, ``study.workers`` at a time in processes of their own."""
    todo = [key for key in keys if _finished(components, key) is None]
    if on_model is not None:
        on_model("training", len(keys) - len(todo), len(keys))
    if not todo:
        return
    workers = min(components.study.workers, len(todo))
    if workers == 1:
        for done, key in enumerate(todo, start=1):
            train_one(components, key)
            if on_model is not None:
                on_model("training", len(keys) - len(todo) + done, len(keys))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=die_with, initargs=(os.getpid(),)) as pool:
        try:
            futures = [pool.submit(_train_in_child, dict(components.config), key) for key in todo]
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if on_model is not None:
                    on_model("training", len(keys) - len(todo) + done, len(keys))
        except BrokenProcessPool as error:
            raise StudyError(
                "a training process died (out of memory?)",
                field="study.workers",
                value=workers,
                hint="The same command goes on from the last checkpoint; try study.workers=1.",
            ) from error
        except BaseException:
            # Leaving the block waits for running trainings; checkpoints make it safe not to.
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()
            raise


def _train_in_child(config: Mapping[str, Any], key: str) -> None:
    components = build(config)
    with log_file(components.study.path):
        train_one(components, key)


def train_one(components: Components, key: str) -> None:
    """Trains one architecture fully, exports it and scores the file on test; writes
    ``trained.json`` last, so that its presence means that all the rest is there. A model that
    cannot be trained or exported costs itself only."""
    folder = _folder(components, key)
    try:
        trained = _train_and_export(components, key, folder)
    except StudyError:
        raise
    except OSError as error:
        raise StudyError(f"cannot write the model: {error}", field="study.dir", value=str(folder)) from error
    except Exception as error:  # A user's model or training code may raise anything.
        log.warning("training of %s failed:\n%s", key, traceback.format_exc())
        trained = TrainedModel(key, recipe(components), error=f"{type(error).__name__}: {error}"[:1000])
    write_json(folder / "trained.json", TrainedModel.SCHEMA, trained.to_dict())
    if not trained.error:
        shutil.rmtree(folder / f"checkpoint-{recipe(components)}", ignore_errors=True)


def _train_and_export(components: Components, key: str, folder: Path) -> TrainedModel:
    from ..export import ModelCard, ModelMetadata, export_model, write_card
    from ..tasks.torch_state import seeded, torch_threads

    space, task = components.space, components.task
    architecture = space.architecture(space.algebra.from_key(key))
    seed = evaluation_seed(components.study.seed, key)
    with seeded(seed):
        model = space.build(architecture.config)
    # One thread, whatever the number of workers: the sum of gradients depends on it.
    with torch_threads(1):
        validation = task.train(
            model, components.finalise.budget, seed=seed, checkpoint=folder / f"checkpoint-{recipe(components)}"
        )
    if not math.isfinite(validation.quality):
        raise TaskError("training ended without a quality", field=task.metric, value=validation.quality)
    card = ModelCard(
        name=model_id(key),
        metadata=ModelMetadata(architecture, task.identity(), task.labels, task.preprocessing),
        metric=task.metric,
        validation={task.metric: validation.quality, **validation.metrics},
        training={"budget": validation.budget, "budget_unit": validation.budget_unit, "seed": seed},
        costs=_costs(components, key),
    )
    config = OmegaConf.to_yaml(OmegaConf.create(dict(components.config)))
    exported = export_model(space.deployable(architecture.config), model, folder, card, config=config)
    files = exported.card.files
    test = task.score(folder / files[0], "test")
    trained = TrainedModel(key, recipe(components), validation, test, files=files, max_abs_error=exported.max_abs_error)
    if is_rounded(components.device):
        trained = _as_deployed(components, exported.deployable, folder, trained)
    write_card(folder, _card_of(exported.card, task.metric, trained))
    return trained


def _as_deployed(components: Components, exported: Deployable, folder: Path, trained: TrainedModel) -> TrainedModel:
    """The model as the device runs it: its file first, and its own scores."""
    task, validation = components.task, trained.validation
    if validation is None:
        return trained
    deployed = deploy(components.device, exported, folder)
    scores = {split: deployed.scores(task, split) for split in ("validation", "test")}
    others = {name: value for name, value in scores["validation"].items() if name != task.metric}
    return replace(
        trained,
        validation=replace(validation, quality=scores["validation"][task.metric], metrics=others),
        test=scores["test"],
        fp32={"validation": {task.metric: validation.quality, **validation.metrics}, "test": trained.test},
        files=(deployed.file, *trained.files) if deployed.file else trained.files,
    )


def _card_of(card: ModelCard, metric: str, trained: TrainedModel) -> ModelCard:
    """The card with what became of the model after its export."""
    if trained.validation is None or not trained.fp32:
        return replace(card, test=trained.test)
    return replace(
        card,
        validation={metric: trained.validation.quality, **trained.validation.metrics},
        test=trained.test,
        fp32=trained.fp32,
        files=trained.files[:1],
        fp32_file=card.files[0] if trained.files[0] != card.files[0] else "",
    )


def _costs(components: Components, key: str) -> dict[str, float]:
    columns = components.space.costs(components.space.algebra.from_key(key)[None]).columns()
    return {name: float(column[0]) for name, column in columns.items()}


def _finished(components: Components, key: str) -> TrainedModel | None:
    """The model of this recipe, if it was trained without error before."""
    path = _folder(components, key) / "trained.json"
    if not path.exists():
        return None
    trained = _read(path)
    whole = all((path.parent / name).is_file() for name in trained.files)
    return trained if whole and trained.recipe == recipe(components) and not trained.error else None


def _read(path: Path) -> TrainedModel:
    return TrainedModel.from_dict({"schema": TrainedModel.SCHEMA, **read_json(path, TrainedModel.SCHEMA)})


def _folder(components: Components, key: str) -> Path:
    return components.study.path / "models" / model_id(key)


# ---- Verifying --------------------------------------------------------------------------------


def _verify(
    problem: Problem, components: Components, batch: Sequence[Trial], on_model: OnModel | None
) -> list[ModelRow]:
    """Measures each candidate's very file on the device and judges it."""
    if on_model is not None:
        on_model("verifying", 0, len(batch))
    trained = [_trained(components, trial) for trial in batch]
    measurable = [i for i, t in enumerate(trained) if not t.error]
    store = MeasurementStore(components.study.store)
    deployables = [_shipped(components, trained[i]) for i in measurable]
    results = measure_all(components.device, components.protocol, store, deployables, seed=components.study.seed)
    by_index = dict(zip(measurable, results, strict=True))
    if on_model is not None:
        on_model("verifying", len(batch), len(batch))
    rows = [_row(problem, components, trial, trained[i], by_index.get(i)) for i, trial in enumerate(batch)]
    for row in rows:
        _complete_card(components, row)
    return rows


def _complete_card(components: Components, row: ModelRow) -> None:
    """Adds what verification found to the model's card."""
    from ..export import read_card, write_card

    if row.files:
        folder = components.study.path / row.folder
        card = replace(
            read_card(folder),
            measurement=row.measurement,
            predicted_ms=row.predicted_ms,
            predicted_std_ms=row.predicted_std_ms,
        )
        write_card(folder, card)


def _trained(components: Components, trial: Trial) -> TrainedModel:
    key = components.space.keys(trial.genotype[None])[0]
    if components.evaluator.has_weights:
        return _read(_folder(components, key) / "trained.json")
    return TrainedModel(key, validation=Evaluation(quality=float(trial.quality or 0.0)))


def _shipped(components: Components, trained: TrainedModel) -> Deployable:
    """What the device runs: the exported file, or the architecture where the device takes those."""
    space = components.space
    deployable = space.deployable(space.config(space.algebra.from_key(trained.key)))
    if components.device.accepts != "onnx" or not trained.files:
        return deployable
    main = replace(
        deployable.graphs["main"], module=None, onnx_path=_folder(components, trained.key) / trained.files[0]
    )
    return replace(deployable, graphs={"main": main})


def _row(
    problem: Problem, components: Components, trial: Trial, trained: TrainedModel, measurement: Measurement | None
) -> ModelRow:
    mean, std = problem.latency.predict(trial.genotype[None])
    reason = _reason(problem, trained, measurement)
    validation = trained.validation
    return ModelRow(
        key=trained.key,
        config=components.space.config(trial.genotype),
        validation={} if validation is None else {"quality": validation.quality, **validation.metrics},
        test=trained.test,
        fp32=trained.fp32,
        predicted_ms=float(mean[0]),
        predicted_std_ms=float(std[0]),
        costs=_costs(components, trained.key),
        accepted=not reason,
        reason=reason,
        folder=f"models/{model_id(trained.key)}" if trained.files else "",
        files=trained.files,
        measurement=measurement,
        max_abs_error=trained.max_abs_error,
        trained=components.evaluator.has_weights and validation is not None,
        training_s=validation.cost_s if validation is not None else 0.0,
    )


def _reason(problem: Problem, trained: TrainedModel, measurement: Measurement | None) -> str:
    """Why a model is dropped; empty if it is accepted."""
    if trained.error or measurement is None:
        return trained.error or "not measured"
    if measurement.verdict == "failed":
        return f"measurement failed: {measurement.error}"
    if problem.limit_ms is not None and measurement.latency_ms > problem.limit_ms:
        return f"measured {measurement.latency_ms:.4g} ms, over the limit of {problem.limit_ms:.4g} ms"
    return ""
