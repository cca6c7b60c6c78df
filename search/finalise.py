"""From the best candidates to models that ship: train fully, export, verify that very file."""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import StudyError
from ..records import Evaluation, Measurement, ModelRow
from ..records.store import MeasurementStore
from .history import History, Trial
from .log_file import log_file
from .measuring import measure_all
from .pareto import non_dominated
from .problem import Problem
from .ranking import Verified, by_chance, rank, rank_again
from .setup import Components, build
from .trained_model import TrainedModel, costs_of, finished, model_id, shipped, train_one, trained_model
from .workers import die_with

log = logging.getLogger(__name__)

OnModel = Callable[[str, int, int], None]
"""Called with (what is going on, models done, models begun)."""

Relearn = Callable[[Mapping[str, float]], Problem]
"""The problem as it looks with further latencies in ms by architecture key."""

OnRows = Callable[[list[ModelRow]], object]
"""Called with all models so far, whenever more are verified."""


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
    todo = [key for key in keys if finished(components, key) is None]
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
    if components.evaluator.gives_initial:
        components.evaluator.prepare(components.study.path, seed=components.study.seed)  # there already: loads it
    with log_file(components.study.path):
        train_one(components, key)


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
    deployables = [shipped(components, trained[i]) for i in measurable]
    results = measure_all(components.device, components.protocol, store, deployables, seed=components.study.seed)
    by_index = dict(zip(measurable, results, strict=True))
    if on_model is not None:
        on_model("verifying", len(batch), len(batch))
    rows = [_row(problem, components, trial, trained[i], by_index.get(i)) for i, trial in enumerate(batch)]
    for row in rows:
        _complete_card(components, row)
    return rows


def _trained(components: Components, trial: Trial) -> TrainedModel:
    key = components.space.keys(trial.genotype[None])[0]
    if components.evaluator.has_weights:
        return trained_model(components, key)
    return TrainedModel(key, validation=Evaluation(quality=float(trial.quality or 0.0)))


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
        costs=costs_of(components, trained.key),
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
