"""From a config or a bundle to a predictor and its space."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from omegaconf import DictConfig

    from ...cli import Options
    from ...predictors import LatencyPredictor
    from ...search_spaces import SearchSpace

DEFAULT = "gnomon"


@dataclass(frozen=True)
class Made:
    """A predictor and what to call it.

    Args:
        option: Its option of the config group, or its class's name.
        node: Its config as plain types, for provenance.
        bundle: Folder of what it learnt, or empty.
    """

    predictor: LatencyPredictor
    option: str
    node: Mapping[str, Any]
    bundle: str = ""

    @property
    def space(self) -> SearchSpace:
        return self.predictor.space


def option_name(config: DictConfig, options: Options) -> str:
    """The name of the predictor chosen on this command line."""
    chosen = [word.split("=", 1)[1] for word in options.overrides if word.startswith("predictor=")]
    if chosen:
        return chosen[-1]
    return DEFAULT if not is_set(options, "predictor._target_") else str(config.predictor["_target_"]).rsplit(".", 1)[1]


def is_set(options: Options, key: str) -> bool:
    """Whether a command line says anything of ``key``."""
    return any(word.lstrip("+~").startswith((f"{key}=", f"{key}.")) for word in options.overrides)


def plain(node: DictConfig) -> dict[str, Any]:
    """A config node as plain types."""
    from omegaconf import OmegaConf

    found: Any = OmegaConf.to_container(node, resolve=True)
    return dict(found)


def make_predictor(config: DictConfig, options: Options, space: Mapping[str, Any] | None = None) -> Made:
    """The predictor that the config names, or the one that ``bundle`` holds, with its space.

    Args:
        config: With ``predictor``, ``space``, ``bundle`` and ``plugins``.
        options: Tell what was chosen and what is a default: a bundle gives way to what was chosen.
        space: Spec to use where neither the command line nor a bundle names a space.

    Raises:
        GnomonError: Whatever is wrong with config or bundle.
    """
    from ...predictors import load_state, read_learnt
    from ...search.instantiate import instantiate
    from ...search.setup import make_space
    from ...search_spaces import space_from_spec

    plugins = list(config.plugins)
    node, option = plain(config.predictor), option_name(config, options)
    bundle = config.bundle or node.get("bundle")
    if bundle is not None:
        learnt = read_learnt(Path(bundle))
        space = learnt.space
        if not is_set(options, "predictor"):
            node, option = dict(learnt.details.get("config") or node), str(learnt.details.get("option") or option)
        node = {name: None if name == "bundle" else value for name, value in node.items()}  # restored below
    if is_set(options, "space") or space is None:
        made_space = make_space(config.space, None, plugins)
    else:
        made_space = space_from_spec(space)
    predictor: LatencyPredictor = instantiate(node, "predictor", plugins, space=made_space)
    if bundle is not None:
        predictor.restore(load_state(Path(bundle), predictor))
    return Made(predictor, option, node, "" if bundle is None else str(bundle))


def stamp() -> dict[str, str]:
    """When and with which version something was written."""
    from ... import __version__

    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "version": __version__}
