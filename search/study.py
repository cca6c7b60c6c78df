"""A whole search: measure, adapt, search, finalise, report; and the same again after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from ..errors import ConfigError, StudyError
from ..records import ModelRow, StudySummary
from ..schema import read_json, write_text
from .calibrate import Calibration, calibrate, make_problem
from .feasibility import check_feasible
from .finalise import OnModel, finalise
from .ledger import Ledger
from .log_file import log_file
from .loop import OnEvent
from .problem import Problem
from .setup import Components, build
from .summary import SUMMARY_FILE, save, summarise
from .workers import run_workers

CONFIG_FILE = "config.yaml"
WAIT_S = 1.0
"""Between looks at the ledger while another worker measures or finalises: it wants a quiet machine."""

OWN_GROUPS = ("study", "finalise")
"""What may change when a study goes on."""


class Display(Protocol):
    """What a user sees while a search runs; the command line has one made of progress bars."""

    def phase(self, text: str) -> None: ...

    def references(self, done: int, total: int) -> None: ...

    @property
    def on_event(self) -> OnEvent: ...

    @property
    def on_model(self) -> OnModel: ...


def run_search(config: DictConfig, display: Display) -> tuple[StudySummary, Components]:
    """Runs or resumes a study to its end and writes ``study.json``.

    Raises:
        GnomonError: With what to do; the study goes on where it was when run again.
    """
    components = build(config)
    ledger = Ledger(components.study.storage, components.study.name, components.space)
    ledger.create(components.objective, components.identity)
    _save_config(components)  # only now: a command that is refused must not change the study
    with log_file(components.study.path):
        started = time.monotonic()
        spent = ledger.note("spend") or {}
        calibration = _calibration(ledger, components, display)
        problem = make_problem(components, calibration)
        check_feasible(problem, components.study.seed)

        def summary(models: list[Any], finished: bool) -> StudySummary:
            spend = _spend(ledger, calibration, models, spent, started)
            ledger.set_note("spend", {"wall_s": spend["wall_s"]})
            result = summarise(ledger, problem, components, calibration, models, finished=finished, spend=spend)
            save(result, components)
            return result

        display.phase(f"searching {components.space.name} for {components.study.evaluations} evaluations")
        try:
            run_workers(ledger, problem, components, display.on_event)
        finally:
            summary([], finished=False)
        models = _finalise(ledger, problem, components, calibration, display)
        return summary(models, finished=True), components


def _finalise(
    ledger: Ledger, problem: Problem, components: Components, calibration: Calibration, display: Display
) -> list[ModelRow]:
    """Finalises, one worker at a time; the others then find everything done.

    On another device than the one that was calibrated nothing is finalised: its latencies would be
    judged by a limit and a predictor that are not its own.
    """
    if not components.finalise.enabled:
        return []
    here = components.device.setting(components.space.workload)
    if here.id != calibration.setting.id:
        display.phase(f"not finalising here: {calibration.foreign(here)}")
        return []
    display.phase("finalising the best: training, export, verification")
    while True:
        with ledger.lease("finalise").held() as mine:
            if mine:
                return finalise(problem, components, ledger.history(), display.on_model)
        time.sleep(WAIT_S)


def resume_config(folder: Path, changes: DictConfig | None = None) -> DictConfig:
    """The config a study was started with, with changes to ``study`` and ``finalise`` merged in.

    Raises:
        StudyError: If the folder holds no study.
    """
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise StudyError(
            "holds no study", field="study.resume", value=str(folder), allowed=f"a folder with {CONFIG_FILE}"
        )
    config = OmegaConf.load(path)
    if not isinstance(config, DictConfig):
        raise StudyError("is not a config", field="study.resume", value=str(path))
    config.study.dir, config.study.name = str(folder.absolute().parent), folder.absolute().name
    if changes is not None:
        foreign = [str(key) for key in changes if key not in OWN_GROUPS]
        if foreign:
            raise ConfigError(
                "cannot change in a study that goes on", field="study.resume", value=foreign, allowed=OWN_GROUPS
            )
        config = cast("DictConfig", OmegaConf.merge(config, changes))
    config.study.resume = None
    return config


def open_study(folder: Path) -> tuple[Components, Ledger, Calibration | None, Problem | None]:
    """A study to look at, without working on it."""
    components = build(resume_config(folder), must_run=False)
    ledger = Ledger(components.study.storage, components.study.name, components.space)
    ledger.open()
    note = ledger.note("calibration")
    calibration = None if note is None else Calibration.from_dict(note)
    return components, ledger, calibration, None if calibration is None else make_problem(components, calibration)


def refresh_summary(folder: Path) -> None:
    """Brings ``study.json`` up to date with the ledger, if the study is not finished."""
    path = folder / SUMMARY_FILE
    components, ledger, calibration, problem = open_study(folder)
    if path.is_file():
        written = read_json(path, StudySummary.SCHEMA)
        if written["finished"] and written["spend"]["evaluations"] == ledger.counts().evaluated:
            return
    if calibration is None or problem is None:
        raise StudyError(
            "has nothing to report yet", field="from", value=str(folder), hint="Its references are not measured."
        )
    spend = _spend(ledger, calibration, [], ledger.note("spend") or {}, time.monotonic())
    save(summarise(ledger, problem, components, calibration, [], finished=False, spend=spend), components)


def _save_config(components: Components) -> None:
    config = OmegaConf.create(dict(components.config))
    config.study.dir, config.study.name = str(components.study.path.parent), components.study.name
    write_text(components.study.path / CONFIG_FILE, OmegaConf.to_yaml(config))


def _calibration(ledger: Ledger, components: Components, display: Display) -> Calibration:
    """The study's reference latencies: from the ledger, or measured by the one who has the lease."""
    while True:
        note = ledger.note("calibration")
        if note is not None:
            return Calibration.from_dict(note)
        with ledger.lease().held() as mine:
            if mine and ledger.note("calibration") is None:
                display.phase(f"measuring reference architectures on {components.device.name}")
                begun = time.monotonic()
                result = calibrate(components, display.references)
                ledger.set_note("calibration", replace(result, seconds=time.monotonic() - begun).to_dict())
                return result
        time.sleep(WAIT_S)


def _spend(
    ledger: Ledger, calibration: Calibration, models: list[Any], before: Mapping[str, float], started: float
) -> dict[str, float]:
    counts = ledger.counts()
    return {
        "wall_s": float(before.get("wall_s", 0.0)) + time.monotonic() - started,
        "measuring_s": calibration.seconds,
        "evaluating_s": sum(evaluation_costs_s(ledger.frozen_trials())),
        "training_s": float(sum(m.training_s for m in models)),
        "evaluations": counts.evaluated,
        "duplicates": counts.duplicates,
        "failures": counts.failed,
        "measurements": calibration.measured + sum(m.measurement is not None for m in models),
    }


def evaluation_costs_s(trials: Sequence[FrozenTrial]) -> list[float]:
    """Seconds of each evaluation that was paid for; copies for duplicates are left out."""
    return [
        float(t.user_attrs["evaluation"]["cost_s"])
        for t in trials
        if "evaluation" in t.user_attrs and "duplicate_of" not in t.user_attrs
    ]
