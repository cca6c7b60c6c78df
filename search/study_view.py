"""A study to look at: its folder and ledger alone, without its device, data or tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..errors import ConfigError, StudyError
from .calibrate import Calibration, make_problem
from .instantiate import instantiate
from .ledger import Ledger
from .objective import Objective
from .problem import Problem
from .setup import FinaliseSettings, StudySettings, finalise_settings, make_space, study_settings

CONFIG_FILE = "config.yaml"
OWN_GROUPS = ("study", "finalise")
"""What may change when a study goes on."""


@dataclass(frozen=True)
class StudyView:
    """What the folder and the ledger tell.

    Args:
        problem: None until the references are measured.
    """

    folder: Path
    study: StudySettings
    finalise: FinaliseSettings
    objective: Objective
    ledger: Ledger
    calibration: Calibration | None
    problem: Problem | None


def open_study(folder: Path) -> StudyView:
    """The study in ``folder``; safe while workers write to it.

    Raises:
        StudyError: If the folder holds none, or it is damaged.
    """
    config = resume_config(folder)
    plugins = list(config.plugins)
    space = make_space(config.space, None, plugins)
    study = study_settings(config, space.name, "", "")
    ledger = Ledger(study.storage, study.name, space)
    ledger.open()
    objective: Objective = instantiate(config.objective, "objective", plugins)
    predictor = instantiate(config.predictor, "predictor", plugins, space=space)
    note = ledger.note("calibration")
    calibration = None if note is None else Calibration.from_dict(note)
    problem = None if calibration is None else make_problem(predictor, objective, calibration)
    return StudyView(folder, study, finalise_settings(config), objective, ledger, calibration, problem)


def resume_config(folder: Path, changes: DictConfig | None = None) -> DictConfig:
    """The config a study was started with, with changes to ``study`` and ``finalise`` merged in.

    Raises:
        StudyError: If the folder holds no study, or its config is damaged.
        ConfigError: If something else is to change, or to an impossible value.
    """
    path = folder / CONFIG_FILE
    config = _load(path)
    config.study.folder = str(folder.absolute())  # wherever it was moved to
    if changes is not None:
        foreign = [str(key) for key in changes if key not in OWN_GROUPS]
        if foreign:
            raise ConfigError(
                "cannot change in a study that goes on", field="study.resume", value=foreign, allowed=OWN_GROUPS
            )
        try:
            OmegaConf.set_struct(config, True)
            config = cast("DictConfig", OmegaConf.merge(config, changes))
        except OmegaConfBaseException as error:
            raise ConfigError(str(error).splitlines()[0], field="study.resume", value=str(folder)) from error
    config.study.resume = None
    return config


def _load(path: Path) -> DictConfig:
    if not path.is_file():
        raise StudyError(
            "holds no study", field="study.resume", value=str(path.parent), allowed=f"a folder with {CONFIG_FILE}"
        )
    try:
        config: Any = OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise StudyError(f"cannot read it: {str(error).splitlines()[0]}", field="config", value=str(path)) from error
    if not isinstance(config, DictConfig) or not {"study", "finalise", "space", "objective"} <= set(config):
        raise StudyError("is not the config of a study", field="config", value=str(path))
    return config
