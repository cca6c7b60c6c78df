"""From a resolved config to the objects of a search, in any process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from ..devices import Device, Protocol
from ..errors import ConfigError, DeviceError, SpaceError
from ..predictors import LatencyPredictor
from ..schema import Record
from ..search_spaces import SearchSpace
from ..tasks import Evaluator, Task
from .deployment import set_calibration
from .instantiate import instantiate
from .objective import Objective
from .strategy import Strategy

FROM_TASK = ("input_shape", "classes")
"""Arguments of a space that its own default fills in where neither config nor task gives them."""


@dataclass(frozen=True)
class StudySettings(Record):
    """The ``study`` group, checked, with absolute paths."""

    name: str
    folder: str
    storage: str
    store: str
    seed: int = 0
    workers: int = 1
    evaluations: int = 24
    batch: int = 4
    references: int = 10
    refinements: int = 0
    time_limit_s: float | None = None

    @property
    def path(self) -> Path:
        return Path(self.folder)


@dataclass(frozen=True)
class FinaliseSettings(Record):
    """The ``finalise`` group, checked."""

    enabled: bool = True
    top_k: int = 4
    budget: float = 12.0
    max_models: int = 12


@dataclass(frozen=True)
class Components:
    """Everything a search is made of."""

    config: Mapping[str, Any]
    space: SearchSpace
    task: Task
    device: Device
    protocol: Protocol
    evaluator: Evaluator
    predictor: LatencyPredictor
    strategy: Strategy
    objective: Objective
    study: StudySettings
    finalise: FinaliseSettings

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two studies the same search."""
        return search_identity(self.config) | {
            "space": self.space.spec(),
            "task_data": self.task.identity(),
            "quality_data": self.evaluator.identity(),
        }


def build(config: DictConfig | Mapping[str, Any]) -> Components:
    """Makes the components that a resolved search config names.

    Raises:
        GnomonError: Whatever a component finds wrong with its settings, data or this machine.
    """
    node = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
    plugins = list(node.get("plugins") or [])

    def make(name: str, **extra: Any) -> Any:
        return instantiate(node[name], name, plugins, **extra)

    finalise = finalise_settings(node)  # what is cheap to check comes first
    check_study(node)
    objective: Objective = make("objective")
    strategy: Strategy = make("strategy")
    _check_objectives(strategy, objective)
    task: Task = make("task")
    space = make_space(node["space"], task, plugins)
    strategy.check(space)
    check_given(space, task)
    device: Device = make("device")
    reason = type(device).unavailable()
    if reason is not None:
        raise DeviceError(
            f"cannot run here: {reason}", field="device", value=device.name, hint="`gnomon devices` lists what can."
        )
    if objective.limit.share is not None and objective.limit.reference:
        _check_reference(space, objective.limit.reference)
    evaluator: Evaluator = make("quality", space=space, task=task)
    if evaluator.has_weights:
        set_calibration(device, space, task)
    study = study_settings(node, space.name, device.name, task.name)
    predictor: LatencyPredictor = make("predictor", space=space)
    if study.references <= predictor.minimum:
        raise ConfigError(
            "too few measurements for this predictor",
            field="study.references",
            value=study.references,
            allowed=f"{predictor.minimum + 1} or more",
        )
    return Components(
        config=cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True)),
        space=space,
        task=task,
        device=device,
        protocol=make("protocol"),
        evaluator=evaluator,
        predictor=predictor,
        strategy=strategy,
        objective=objective,
        study=study,
        finalise=finalise,
    )


def make_space(node: DictConfig, task: Task | None, plugins: list[str]) -> SearchSpace:
    """The space of a config node; arguments left null are the task's, where it knows them."""
    plain = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    if task is not None:
        known = task.space_arguments()
        plain.update({name: known[name] for name in known if name in plain and plain[name] is None})
    plain = {name: value for name, value in plain.items() if not (name in FROM_TASK and value is None)}
    space: SearchSpace = instantiate(plain, "space", plugins)
    return space


def study_settings(node: DictConfig, space: str, device: str, task: str) -> StudySettings:
    """The checked ``study`` group with names and paths filled in."""
    study = node["study"]
    root = Path(study["dir"]).absolute()
    plain = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    digest = sha256(json.dumps(search_identity(plain), sort_keys=True).encode()).hexdigest()[:6]
    name = study["name"] or f"{space}-{device}-{task}-{digest}"
    folder = root / name if study["folder"] is None else Path(study["folder"]).absolute()
    return StudySettings(
        name=name,
        folder=str(folder),
        storage=study["storage"] or f"sqlite:///{folder / 'ledger.sqlite'}",
        store=study["store"] or str(root / "measurements.sqlite"),
        **{
            key: study[key]
            for key in ("seed", "workers", "evaluations", "batch", "references", "refinements", "time_limit_s")
        },
    )


def check_study(node: DictConfig) -> None:
    """Checks the ``study`` group.

    Raises:
        ConfigError: If a number is out of range, or the name is none for a folder and a URL.
    """
    study = node["study"]
    for name in ("workers", "evaluations", "batch", "references"):
        _at_least(1, f"study.{name}", study[name])
    _at_least(0, "study.seed", study["seed"])
    _at_least(0, "study.refinements", study["refinements"])
    if study["time_limit_s"] is not None:
        _at_least(1, "study.time_limit_s", study["time_limit_s"])
    name = study["name"]
    if name is not None and not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(
            "not a name", field="study.name", value=name, allowed="letters, digits, '_', '.', '+' and '-'"
        )


def finalise_settings(node: DictConfig) -> FinaliseSettings:
    """Checks the ``finalise`` group.

    Raises:
        ConfigError: If a number is out of range.
    """
    settings = FinaliseSettings.from_dict(cast("dict[str, Any]", OmegaConf.to_container(node["finalise"])))
    _at_least(1, "finalise.top_k", settings.top_k)
    _at_least(settings.top_k, "finalise.max_models", settings.max_models)
    if not settings.budget > 0:
        raise ConfigError("not a budget", field="finalise.budget", value=settings.budget, allowed="above 0")
    return settings


def _at_least(least: float, field: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ConfigError("not a number", field=field, value=value, allowed=f"{least} or more")
    if not value >= least:
        raise ConfigError("too small", field=field, value=value, allowed=f"{least} or more")


def search_identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is searched: not where it is kept, how long it runs,
    or what happens to the result."""
    parts = ("space", "device", "protocol", "task", "quality", "predictor", "strategy", "objective")
    return {name: config[name] for name in parts} | {
        "seed": config["study"]["seed"],
        "batch": config["study"]["batch"],
        "references": config["study"]["references"],
        "refinements": config["study"]["refinements"],
    }


def check_given(space: SearchSpace, task: Task) -> None:
    """Whether the task speaks to a trained model as it was spoken to in training.

    Raises:
        ConfigError: If a file that both have, such as the tokenizer, differs, or the task asks for more than the
            model takes.
    """
    wanted = task.space_arguments()
    for name, most in space.given_limits().items():
        if wanted.get(name, 0) > most:
            raise ConfigError(
                f"takes less than the task asks for: its {name} is {most}, the task's {wanted[name]}",
                field="space.model",
                value=space.arguments().get("model"),
                allowed="a model trained at such lengths, or a task with less",
            )
    given = space.given_assets()
    own = task.assets() if given else {}
    for name in given.keys() & own.keys():
        if json.loads(given[name]) != json.loads(own[name]):
            raise ConfigError(
                f"was trained with another {name} than the task's",
                field="space.model",
                value=space.arguments().get("model"),
                allowed="a model of the same task; task.vocabulary_size and the texts make a tokenizer",
            )


def _check_reference(space: SearchSpace, name: str) -> None:
    try:
        space.named_genotype(name)
    except SpaceError as error:
        raise ConfigError(error.problem, field="objective.reference", value=name, allowed=error.allowed) from error


def _check_objectives(strategy: Strategy, objective: Objective) -> None:
    most = strategy.max_objectives
    if most is not None and len(objective.directions) > most:
        raise ConfigError(
            f"{strategy.name} optimises {most} value at a time, and this objective has {len(objective.directions)}",
            field="strategy",
            value=strategy.name,
            allowed="objective.metrics=[quality], objective=mnasnet_soft or mnasnet_hard, or another strategy",
        )
