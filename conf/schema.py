"""Types of the configs that Gnomon's own code reads key by key.

Groups whose options are objects (``space``, ``device``, ...) are checked by the constructors they
name; ``study`` and ``finalise`` are checked here by Hydra: unknown keys and wrong types are
refused before anything starts. Nothing here imports torch, so that ``--help`` stays fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore


@dataclass
class StudyConfig:
    """Where a study lives and how long it may take."""

    name: str | None = None
    dir: str = "runs"
    folder: str | None = None
    storage: str | None = None
    store: str | None = None
    seed: int = 0
    workers: int = 1
    evaluations: int = 24
    batch: int = 4
    references: int = 10
    refinements: int = 6
    time_limit_s: float | None = None
    resume: str | None = None


@dataclass
class FinaliseConfig:
    """What happens to the best candidates."""

    enabled: bool = True
    top_k: int = 4
    budget: float = 12.0
    max_models: int = 12


@dataclass
class SearchConfig:
    """The root of ``gnomon search``."""

    study: StudyConfig = field(default_factory=StudyConfig)
    finalise: FinaliseConfig = field(default_factory=FinaliseConfig)
    space: Any = None
    device: Any = None
    protocol: Any = None
    task: Any = None
    quality: Any = None
    predictor: Any = None
    strategy: Any = None
    objective: Any = None
    plugins: list[str] = field(default_factory=list)


def register() -> None:
    """Puts the schemas into Hydra's store; idempotent."""
    ConfigStore.instance().store(name="search", node=SearchConfig, group="schema")
