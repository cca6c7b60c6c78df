"""From command-line overrides to a checked config, with errors in one line."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        raise ConfigError(_one_line(error), hint=_hint(primary, error)) from error
    return config


def _hint(primary: str, error: BaseException) -> str:
    """The key that was probably meant."""
    found = re.search(r"Could not override '([^']+)'", str(error))
    if found:
        close = difflib.get_close_matches(found.group(1), _keys(primary), n=3, cutoff=0.7)
        if close:
            return f"Did you mean {' or '.join(close)}?"
    return "`gnomon --help` lists the config groups, `gnomon search --help` the keys."


def _keys(primary: str) -> list[str]:
    """Every key of the default config with its groups' names, as they are overridden."""
    with initialize_config_module("gnomon.conf", version_base="1.3"):
        plain = OmegaConf.to_container(hydra_compose(primary))

    def walk(node: Any, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        return [key for k, v in node.items() for key in (f"{prefix}{k}", *walk(v, f"{prefix}{k}."))]

    return walk(plain, "")


_NOISE = (
    "full_key:", "object_type=", "reference_type=", "To append to your config", "Set the env variable",
    "Config search path", "provider=", "Check that the config",
)  # fmt: skip
"""Beginnings of lines of Hydra's messages that help nobody here."""


def _one_line(error: BaseException) -> str:
    """Hydra spreads a message over several lines and hides the cause behind it."""
    cause = error
    while cause.__cause__ is not None and str(cause.__cause__):
        cause = cause.__cause__
    lines = [line.strip() for text in (str(error), str(cause)) for line in text.splitlines() if line.strip()]
    return " ".join(dict.fromkeys(line for line in lines if not line.startswith(_NOISE)))


def groups() -> dict[str, list[str]]:
    """Config groups that ship and their options, from the files alone."""
    root = Path(__file__).parent
    return {
        folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
        for folder in sorted(root.iterdir())
        if folder.is_dir() and any(folder.glob("*.yaml"))
    }


def config_text(primary: str, overrides: Sequence[str] = ()) -> str:
    """The commented files behind a job's config, for ``--help``: the primary file, the default
    option of each group that Gnomon itself reads key by key, and every option among ``overrides``
    (``gnomon search task=image_folder --help``)."""
    root = Path(__file__).parent
    parts = [(root / f"{primary}.yaml").read_text(encoding="utf-8").strip()]
    shown = {"objective": "pareto", "study": "default", "finalise": "default"}
    shown |= dict(word.split("=", 1) for word in overrides if "=" in word)
    for name, option in shown.items():
        path = root / name / f"{option}.yaml"
        if f"- {name}:" in parts[0] and path.is_file():
            text = path.read_text(encoding="utf-8")
            parts.append(
                f"# ---- {name}={option} ----\n" + (text.strip() if name == "experiment" else _nested(name, text))
            )
    options = "\n".join(
        f"# {group}: {', '.join(names)}" for group, names in groups().items() if f"- {group}:" in parts[0]
    )
    return "\n\n".join([*parts, "# ---- options of each group ----\n" + options] if options else parts)


def _nested(name: str, text: str) -> str:
    """The keys as they are overridden: ``objective.latency_ms``."""
    lines, prefix = [], name
    for line in text.strip().splitlines():
        if line.startswith("#") or "_target_" in line:
            lines += [line] if line.startswith("#") else []
        elif line[:1].isalpha() and line.split("#")[0].rstrip().endswith(":"):
            prefix = f"{name}.{line.split(':')[0]}"  # a node: its keys follow, indented
        elif line.startswith("  ") and line.strip()[:1].isalpha():
            lines.append(f"{prefix}.{line.strip()}")
        else:
            lines.append(f"{name}.{line}" if line[:1].isalpha() else line)
    return "\n".join(lines)
