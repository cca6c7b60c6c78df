"""All that a report needs of a study, as one record: written by the search, read by reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..schema import Record
from .measurement import Fingerprint, Measurement, Setting
from .shared_training import SharedTraining


@dataclass(frozen=True)
class TrialRow(Record):
    """One trial of the ledger.

    Args:
        quality: By the task's metric; where the training was stopped early, its predicted end.
        stopped_at: Budget after which it was stopped early; None for a whole training.
    """

    number: int
    key: str
    state: str
    quality: float | None = None
    latency_ms: float | None = None
    latency_std_ms: float | None = None
    values: tuple[float, ...] = ()
    feasible: bool = True
    on_front: bool = False
    duplicate_of: int | None = None
    cost_s: float = 0.0
    error: str | None = None
    stopped_at: float | None = None


@dataclass(frozen=True)
class ReferenceRow(Record):
    """One measured reference architecture, beside what the adapted predictor says of it.

    ``predicted_ms`` is leave-one-out where the predictor allows, so that it is honest.
    """

    key: str
    measured_ms: float
    predicted_ms: float
    predicted_std_ms: float
    name: str = ""


@dataclass(frozen=True)
class ModelRow(Record):
    """One finalised model: trained, exported, that file verified on the device, scored on test.

    Args:
        folder: Relative to the study's folder: holds the ONNX files, weights, card and config.
        validation, test: Of the model as it runs on the device.
        fp32: Metrics by split of the trained model, where the device changes its answers (quantises it).
        files: In ``folder``; the first is what the device was given.
        predicted_ms, predicted_std_ms: Before verification.
        measurement: Of the very file that ships; None for recorded studies only if it failed.
        max_abs_error: Largest difference between ONNX Runtime and torch outputs.
        training_s: Seconds of full training.
        accepted: False if dropped; ``reason`` says why.
    """

    key: str
    config: Mapping[str, Any]
    validation: Mapping[str, float]
    test: Mapping[str, float]
    predicted_ms: float
    predicted_std_ms: float
    costs: Mapping[str, float]
    accepted: bool
    reason: str = ""
    folder: str = ""
    files: tuple[str, ...] = ()
    fp32: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    measurement: Measurement | None = None
    max_abs_error: float | None = None
    on_front: bool = False
    trained: bool = True
    training_s: float = 0.0


@dataclass(frozen=True)
class StudySummary(Record):
    """A study as its report shows it.

    Args:
        metric: Name of the quality figure, for example ``accuracy``.
        values: Names of the objective values; ``directions`` beside them.
        limit_ms: The latency limit, or None; ``limit_text`` says where it comes from.
        hypervolume: (distinct evaluations, hypervolume normalised to the last one's reference).
        importance: Share of the quality's variance by decision (fANOVA-type), largest first.
        spend: Seconds by phase, and counts: evaluations, duplicates, failures, measurements.
        config: The resolved Hydra config as YAML.
        shared_training: Of the weights that all evaluations share; None without such weights.
    """

    SCHEMA: ClassVar[str] = "gnomon.study_summary/1"

    name: str
    version: str
    created: str
    space: str
    task: Mapping[str, Any]
    metric: str
    setting: Setting
    fingerprint: Fingerprint
    statistic: str
    strategy: str
    predictor: str
    seed: int
    values: tuple[str, ...]
    directions: tuple[str, ...]
    confidence: float
    limit_ms: float | None = None
    limit_text: str = ""
    trials: tuple[TrialRow, ...] = ()
    references: tuple[ReferenceRow, ...] = ()
    models: tuple[ModelRow, ...] = ()
    hypervolume: tuple[tuple[int, float], ...] = ()
    importance: Mapping[str, float] = field(default_factory=dict)
    spend: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    config: str = ""
    recorded: bool = False
    shared_training: SharedTraining | None = None
    finished: bool = False
