"""From ``from=`` or ``architecture=`` on a command line to something that can be measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, SpaceError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from ..search_spaces import Deployable, SearchSpace


def space_and_config(config: DictConfig) -> tuple[SearchSpace, dict[str, Any]]:
    """The space and the architecture's config that ``architecture`` names: a named network, a key,
    a JSON file of choices, or an exported ``architecture.json`` (which brings its own space).

    Raises:
        ConfigError, SpaceError: If it names nothing.
    """
    from ..search.setup import make_space
    from ..search_spaces import space_from_spec

    text = config.architecture
    if text is None:
        raise ConfigError(
            "nothing to work on", field="architecture", value=None, allowed="a named network, a key, or a JSON file"
        )
    text = str(text)
    if text.endswith(".json"):
        data = _read(Path(text))
        if "space" in data and "config" in data:
            return space_from_spec(data["space"]), dict(data["config"])
        return make_space(config.space, None, list(config.plugins)), data
    space = make_space(config.space, None, list(config.plugins))
    if text in space.named:
        return space, dict(space.named[text])
    try:
        return space, space.config(space.canonical(space.algebra.from_key(text)[None])[0])
    except SpaceError as error:
        raise SpaceError(
            "no such architecture", field="architecture", value=text, allowed=[*space.named, "a key", "a JSON file"]
        ) from error


def deployable_of(config: DictConfig) -> Deployable:
    """What a device runs for this command line."""
    from ..devices.onnx_file import deployable_from_onnx

    if config["from"] is not None:
        return deployable_from_onnx(Path(config["from"]), batch=config.batch, sizes=dict(config.sizes))
    space, architecture = space_and_config(config)
    return space.deployable(architecture, replace(space.workload, batch=config.batch))


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"cannot read it: {error}", field="architecture", value=str(path)) from error
    if not isinstance(data, dict):
        raise ConfigError("does not hold a JSON object", field="architecture", value=str(path))
    return data
