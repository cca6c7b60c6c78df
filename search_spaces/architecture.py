"""The identity of one architecture, as records and files carry it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..schema import Record


@dataclass(frozen=True)
class Architecture(Record):
    """One architecture of one space.

    Args:
        space: Constructor of the space as JSON: ``{"_target_": class path, **arguments}``.
        key: Canonical key within the space (see ``SearchSpace.keys``).
        config: Choices by decision name, active decisions only.
    """

    SCHEMA: ClassVar[str] = "gnomon.architecture/1"

    space: Mapping[str, Any]
    key: str
    config: Mapping[str, Any]
