"""A whole search: measure, adapt, search, finalise, report; and the same again after a kill."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial

from ..errors import StudyError
from ..records import ModelRow, StudySummary
from ..schema import write_text
from ..tasks import Progress
from .calibrate import Calibration, calibrate, make_problem
from .feasibility import check_feasible
from .finalise import OnModel, OnRows, finalise
from .ledger import Ledger
from .log_file import log_file
from .loop import LoopEvent, OnEvent
from .preparation import prepare, seconds_spent, train_strategy
from .problem import Problem
from .setup import Components, build
from .study_view import CONFIG_FILE, open_study, resume_config
from .summary import SUMMARY_FILE, read_summary, refresh, save, summarise
from .workers import run_workers

__all__ = ["CONFIG_FILE", "Display", "open_study", "refresh_summary", "resume_config", "run_search"]

WAIT_S = 1.0
"""Between looks at the ledger while another worker measures or finalises: it wants a quiet machine."""


class Display(Protocol):
    """What a user sees while a search runs; the command line has one made of progress bars."""

    def phase(self, text: str) -> None: ...

    def references(self, done: int, total: int) -> None: ...

    @property
    def preparation(self) -> Progress: ...

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
        started = time.monotonic() - float((ledger.note("spend") or {}).get("wall_s", 0.0))
        calibration = _calibration(ledger, components, display)
        problem = make_problem(components.predictor, components.objective, calibration)
        check_feasible(problem, components.study.seed)

        def write(models: Sequence[ModelRow], *, finished: bool = False) -> StudySummary:
            wall_s = time.monotonic() - started
            ledger.set_note("spend", {"wall_s": wall_s})
            spend = _spend(ledger, calibration, models, wall_s)
            result = summarise(ledger, problem, components, calibration, models, finished=finished, spend=spend)
            save(result, components.study.path)
            return result

        def on_event(event: LoopEvent) -> None:
            ledger.set_note("spend", {"wall_s": time.monotonic() - started})
            display.on_event(event)

        before = _models_before(components.study.path)
        write(before)
        prepare(ledger, components, display)
        train_strategy(ledger, components, problem, display)
        display.phase(f"searching {components.space.name} for {components.study.evaluations} evaluations")
        run_workers(ledger, problem, components, on_event)
        models = _finalise(ledger, problem, components, calibration, display, write)
        return write(before if models is None else models, finished=True), components


def _models_before(folder: Path) -> Sequence[ModelRow]:
    """The models of the last finish, which stay until they are judged again."""
    path = folder / SUMMARY_FILE
    return read_summary(path).models if path.is_file() else ()


def _finalise(
    ledger: Ledger,
    problem: Problem,
    components: Components,
    calibration: Calibration,
    display: Display,
    on_rows: OnRows,
) -> list[ModelRow] | None:
    """Finalises, one worker at a time; the others then find everything done. None if it is not to.

    On another device than the one that was calibrated nothing is finalised: its latencies would be
    judged by a limit and a predictor that are not its own.
    """
    if not components.finalise.enabled:
        return None
    here = components.device.setting(components.space.workload)
    if here.id != calibration.setting.id:
        display.phase(f"not finalising here: {calibration.foreign(here)}")
        return None
    display.phase("finalising the best: training, export, verification")

    def relearn(latencies_ms: Mapping[str, float]) -> Problem:
        return make_problem(components.predictor, components.objective, calibration.extended(latencies_ms))

    while True:
        with ledger.lease("finalise").held() as mine:
            if mine:
                return finalise(problem, components, ledger.history(), display.on_model, on_rows, relearn)
        time.sleep(WAIT_S)


def refresh_summary(folder: Path) -> None:
    """Brings ``study.json`` up to date with the ledger of a study that is still running.

    Raises:
        StudyError: If its references are not measured yet.
    """
    view = open_study(folder)
    path = folder / SUMMARY_FILE
    if view.calibration is None or view.problem is None or not path.is_file():
        raise StudyError(
            "has nothing to report yet", field="from", value=str(folder), hint="Its references are not measured."
        )
    written = read_summary(path)
    if written.finished and written.spend["evaluations"] == view.ledger.counts().evaluated:
        return
    wall_s = float((view.ledger.note("spend") or {}).get("wall_s", 0.0))
    spend = _spend(view.ledger, view.calibration, written.models, wall_s)
    save(refresh(written, view.ledger, view.problem, spend), folder)


def _save_config(components: Components) -> None:
    """Writes the config with the space's own arguments filled in, so that the study can be looked
    at without loading the task's data."""
    config = OmegaConf.create({**components.config, "space": components.space.spec()})
    config.study.dir, config.study.name = str(components.study.path.parent), components.study.name
    config.study.store = components.study.store
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
                result = replace(calibrate(components, display.references), seconds=time.monotonic() - begun)
                ledger.set_note("calibration", result.to_dict())
                return result
        time.sleep(WAIT_S)


def _spend(ledger: Ledger, calibration: Calibration, models: Sequence[ModelRow], wall_s: float) -> dict[str, float]:
    counts = ledger.counts()
    return {
        "wall_s": wall_s,
        "measuring_s": calibration.seconds,
        **({"preparing_s": preparing_s} if (preparing_s := seconds_spent(ledger)) else {}),
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
