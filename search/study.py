"""A whole search: measure, adapt, search, finalise, report; and the same again after a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError, StudyError
from ..records import StudySummary
from ..schema import read_json, write_text
from .calibrate import Calibration, calibrate, make_problem
from .feasibility import check_feasible
from .finalise import OnModel, finalise
from .ledger import Ledger
from .loop import OnEvent
from .problem import Problem
from .setup import Components, build
from .summary import SUMMARY_FILE, save, summarise
from .workers import run_workers

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.txt"
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
    folder = components.study.path
    _save_config(components)
    with _log_file(folder / LOG_FILE):
        ledger = Ledger(components.study.storage, components.study.name, components.space)
        ledger.create(components.objective, components.identity)
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
        models = []
        if components.finalise.enabled:
            display.phase("finalising the best: training, export, verification")
            models = finalise(problem, components, ledger.history(), display.on_model)
        return summary(models, finished=True), components


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
    components = build(resume_config(folder))
    ledger = Ledger(components.study.storage, components.study.name, components.space)
    ledger.open()
    note = ledger.note("calibration")
    calibration = None if note is None else Calibration.from_dict(note)
    return components, ledger, calibration, None if calibration is None else make_problem(components, calibration)


def refresh_summary(folder: Path) -> None:
    """Brings ``study.json`` up to date with the ledger, if the study is not finished."""
    path = folder / SUMMARY_FILE
    if path.is_file() and read_json(path, StudySummary.SCHEMA).get("finished"):
        return
    components, ledger, calibration, problem = open_study(folder)
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
                ledger.set_note("calibration", {**result.to_dict(), "seconds": time.monotonic() - begun})
        time.sleep(0.05)


def _spend(
    ledger: Ledger, calibration: Calibration, models: list[Any], before: Mapping[str, float], started: float
) -> dict[str, float]:
    counts = ledger.counts()
    evaluated = [
        t.user_attrs["evaluation"]
        for t in ledger.frozen_trials()
        if "evaluation" in t.user_attrs and "duplicate_of" not in t.user_attrs
    ]
    return {
        "wall_s": float(before.get("wall_s", 0.0)) + time.monotonic() - started,
        "measuring_s": calibration.seconds,
        "evaluating_s": float(sum(e["cost_s"] for e in evaluated)),
        "training_s": float(sum(m.training_s for m in models)),
        "evaluations": counts.evaluated,
        "duplicates": counts.duplicates,
        "failures": counts.failed,
        "measurements": calibration.measured + sum(m.measurement is not None for m in models),
    }


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Warnings and tracebacks of this run go to the study's log file, not over the progress bars."""
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger(__package__.split(".")[0] if __package__ else None)
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
        handler.close()
