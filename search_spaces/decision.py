"""A decision: a named, ordered tuple of choices, active only under declared conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from ..errors import SpaceError

Choice: TypeAlias = bool | int | float | str

MAX_CHOICES = 127
"""Genes are stored as int8, which keeps populations of millions small enough for the cache."""


@dataclass(frozen=True)
class Decision:
    """One gene.

    Args:
        name: Unique within the space; also its key in a config.
        choices: JSON scalars; a gene is an index into them.
        active_when: ``{earlier decision: choices under which this one matters}``. All conditions
            must hold, and the decisions named must be active themselves. Declarative, so that it
            vectorises over a population and serialises.
        ordered: Whether neighbouring choices are similar (a width, a depth), so that integer
            samplers make sense.
    """

    name: str
    choices: tuple[Choice, ...]
    active_when: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)
    ordered: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.choices) <= MAX_CHOICES:
            raise SpaceError(
                "a decision needs choices", field=self.name, value=len(self.choices), allowed=f"1 to {MAX_CHOICES}"
            )
        if len({(type(c), c) for c in self.choices}) != len(self.choices):
            raise SpaceError("choices repeat", field=self.name, value=self.choices)
