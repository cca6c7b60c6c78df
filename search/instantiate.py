"""Making objects out of config nodes, from allowed packages only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError, GnomonError


def instantiate(node: DictConfig | Mapping[str, Any], field: str, plugins: Sequence[str] = (), **extra: Any) -> Any:
    """The object that ``node`` describes.

    Args:
        node: With ``_target_``; nested nodes are instantiated too.
        field: Name of the config key, for messages.
        plugins: Top-level packages allowed besides gnomon.
        extra: Further keyword arguments.

    Raises:
        ConfigError: If a target is not allowed or does not take these arguments.
        GnomonError: What the constructor itself raised.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise ConfigError(
            "needs a _target_", field=field, value=plain, allowed="an option of the group, or a node with _target_"
        )
    _check_targets(plain, field, ("gnomon", *plugins))
    try:
        return hydra_instantiate(plain, **extra, _convert_="object")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, GnomonError):
            raise cause from error
        while cause.__cause__ is not None:  # Hydra wraps the reason, several times over
            cause = cause.__cause__
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise ConfigError(f"cannot make {plain['_target_']}: {reason}", field=field, value=_shown(plain)) from error


def _shown(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain.items() if key != "_target_"}


def _check_targets(node: Any, field: str, allowed: tuple[str, ...]) -> None:
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if target is not None and str(target).split(".")[0] not in allowed:
            raise ConfigError(
                "this package may not be loaded from a config",
                field=f"{field}._target_",
                value=target,
                allowed=allowed,
                hint="Add its top-level package to plugins=[…] if you trust it.",
            )
        for key, value in node.items():
            _check_targets(value, f"{field}.{key}", allowed)
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_targets(value, f"{field}[{index}]", allowed)
