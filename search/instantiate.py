"""Making objects out of config nodes, from allowed packages only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from ..errors import ConfigError, GnomonError
from .option_types import check_settings


def instantiate(node: DictConfig | Mapping[str, Any], field: str, plugins: Sequence[str] = (), **extra: Any) -> Any:
    """The object that ``node`` describes.

    Args:
        node: With ``_target_``; nested nodes are instantiated too.
        field: Name of the config key, for messages.
        plugins: Top-level packages allowed besides gnomon.
        extra: Further keyword arguments.

    Raises:
        ConfigError: If a target is not allowed or does not take these arguments, or these types of them.
        GnomonError: What the constructor itself raised.
    """
    plain: Any = OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else dict(node)
    if not isinstance(plain, dict) or "_target_" not in plain:
        raise ConfigError(
            "needs a _target_", field=field, value=plain, allowed="an option of the group, or a node with _target_"
        )
    _check_targets(plain, field, ("gnomon", *plugins))
    _check_settings(plain, field, tuple(extra))
    try:
        return hydra_instantiate(plain, **extra, _convert_="object")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, GnomonError):
            raise _in_group(cause, field, plain) from error
        while cause.__cause__ is not None:  # Hydra wraps the reason, several times over
            cause = cause.__cause__
        reason = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
        raise ConfigError(f"cannot make {plain['_target_']}: {reason}", field=field, value=_shown(plain)) from error


def _in_group(error: GnomonError, field: str, plain: Mapping[str, Any]) -> GnomonError:
    """The error with the setting's name as a command line has it: a constructor does not know in which group it is."""
    own = error.field
    if own is None or own.startswith(f"{field}.") or own.split(".")[0].split("[")[0] not in plain:
        return error
    allowed = error.allowed if error.allowed is None or isinstance(error.allowed, str) else list(error.allowed)
    return type(error)(error.problem, field=f"{field}.{own}", value=error.value, allowed=allowed, hint=error.hint)


def _check_settings(node: Any, field: str, given: tuple[str, ...] = ()) -> None:
    """Of a node and the nodes in it. What cannot be imported is Hydra's to say."""
    if isinstance(node, Mapping):
        target = _found(str(node["_target_"])) if "_target_" in node else None
        if target is not None:
            check_settings(target, node, field, given)
        for key, value in node.items():
            _check_settings(value, f"{field}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_settings(value, f"{field}[{index}]")


def _found(target: str) -> Callable[..., Any] | None:
    try:
        found: Callable[..., Any] = get_object(target)
    except Exception:  # whatever an import raises; making the object raises it again, with its reason
        return None
    return found if callable(found) else None


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
