"""Numbers, lists and truth values of a command's settings, checked."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError


def checked_integers(value: Any, field: str, least: int) -> list[int]:
    """A list of integers of at least ``least``; none for null.

    Raises:
        ConfigError: If it is no such list.
    """
    from omegaconf import ListConfig

    if value is not None and not isinstance(value, (list, tuple, ListConfig)):
        raise ConfigError("no list", field=field, value=value, allowed="integers", hint=f"Write [{value}].")
    return [checked_integer(each, field, least) for each in value or ()]


def checked_flag(value: Any, field: str) -> bool:
    """A truth value: any text would be true.

    Raises:
        ConfigError: If it is none.
    """
    if not isinstance(value, bool):
        raise ConfigError("wrong type", field=field, value=value, allowed="true or false")
    return value


def checked_integer(value: Any, field: str, least: int) -> int:
    """An integer of at least ``least``.

    Raises:
        ConfigError: If it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError("not a number for this", field=field, value=value, allowed=f"{least} or more")
    return value
