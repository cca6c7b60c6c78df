"""From command-line overrides to a checked config, with errors in one line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import ConfigError
from .schema import register


def compose(primary: str, overrides: Sequence[str] = (), config_dirs: Sequence[str] = ()) -> DictConfig:
    """The config of a job.

    Args:
        primary: Name of the job's primary config, for example ``search``.
        overrides: Hydra overrides.
        config_dirs: Folders that add options to the groups (a user's own spaces, tasks, ...).

    Raises:
        ConfigError: For an unknown key or option, a wrong type or a missing value, in one line.
    """
    register()
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError("no such folder", field="--config-dir", value=folder)
    extra = (
        [f"hydra.searchpath=[{','.join(f'file://{os.path.abspath(d)}' for d in config_dirs)}]"] if config_dirs else []
    )
    GlobalHydra.instance().clear()
    try:
        with initialize_config_module("gnomon.conf", version_base="1.3"):
            config = hydra_compose(primary, overrides=[*extra, *overrides])
            OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_one_line(error), hint="`gnomon --help` lists the config groups.") from error
    return config


def _one_line(error: BaseException) -> str:
    """Hydra spreads a message over several lines and hides the cause behind it."""
    cause = error
    while cause.__cause__ is not None and str(cause.__cause__):
        cause = cause.__cause__
    lines = [line.strip() for text in (str(error), str(cause)) for line in text.splitlines() if line.strip()]
    unique = list(
        dict.fromkeys(line for line in lines if not line.startswith(("full_key:", "object_type=", "reference_type=")))
    )
    return " ".join(unique)


def groups() -> dict[str, list[str]]:
    """Config groups that ship and their options, from the files alone."""
    root = Path(__file__).parent
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def config_text(primary: str) -> str:
    """The commented files behind a job's config, for ``--help``: the primary file, then the default
    option of each group that Gnomon itself reads key by key."""
    root = Path(__file__).parent
    parts = [(root / f"{primary}.yaml").read_text(encoding="utf-8").strip()]
    for name, option in (("objective", "pareto"), ("study", "default"), ("finalise", "default")):
        path = root / name / f"{option}.yaml"
        if f"- {name}:" in parts[0] and path.is_file():
            parts.append(f"# ---- {name}={option} ----\n" + _nested(name, path.read_text(encoding="utf-8")))
    options = "\n".join(
        f"# {group}: {', '.join(names)}" for group, names in groups().items() if f"- {group}:" in parts[0]
    )
    return "\n\n".join([*parts, "# ---- options of each group ----\n" + options] if options else parts)


def _nested(name: str, text: str) -> str:
    """The keys as they are overridden: ``objective.latency_ms``."""
    lines = []
    for line in text.strip().splitlines():
        lines.append(line if line.startswith("#") or not line[:1].isalpha() else f"{name}.{line}")
    return "\n".join(line for line in lines if "_target_" not in line)
