"""What may stand where a trained model has attention: mixers by name, with sizes of their own. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import SpaceError
from .sizes import MixerSizes
from .specs import FFN, LanguageModelSpec, Operator

KEEP = "keep"
"""The choice that changes nothing."""
CHANGEABLE = ("heads", "kv_heads", "head_size", "window")
"""Sizes that a replacement may have of its own."""


@dataclass(frozen=True)
class Alternative:
    """A mixer that may replace another.

    Args:
        kind: Of the mixer.
        changes: Sizes that differ from those of the mixer that it replaces.
    """

    kind: str
    changes: Mapping[str, int]

    @property
    def name(self) -> str:
        """As decisions call it: ``sliding_window``, or ``attention_kv_heads1`` with a size of its own."""
        kind = self.kind.rpartition(".")[2]
        return "_".join([kind, *(f"{size}{value}" for size, value in self.changes.items())])

    def of(self, operator: Operator) -> Operator:
        """What replaces ``operator``."""
        return Operator(self.kind, replace(operator.sizes, **self.changes))

    def to_json(self) -> str | dict[str, Any]:
        """As a config writes it."""
        return {"kind": self.kind, **self.changes} if self.changes else self.kind


def checked_alternatives(value: Any) -> tuple[Alternative, ...]:
    """Alternatives of a config: kinds, or mappings of a kind and sizes.

    Raises:
        SpaceError: If there are none, some repeat, a kind does not exist, or a size is none.
    """
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) else ()
    found = tuple(_alternative(entry) for entry in given)
    if not found or len({alternative.name for alternative in found}) != len(found):
        raise SpaceError("not replacements", field="mixers", value=value, allowed="different mixers, at least one")
    return found


def _alternative(entry: Any) -> Alternative:
    from .mixers import mixer_class

    plain = dict(entry) if isinstance(entry, Mapping) else {"kind": entry}
    kind = plain.pop("kind", None)
    if not isinstance(kind, str):
        raise SpaceError("names no mixer", field="mixers", value=entry, allowed="a kind, or {kind: …, window: …}")
    mixer_class(kind)
    for name, size in plain.items():
        if name not in CHANGEABLE or isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise SpaceError(
                "not a size of a replacement",
                field=f"mixers.{kind}.{name}",
                value=size,
                allowed=f"{', '.join(CHANGEABLE)}: integers from 1",
            )
    return Alternative(kind, plain)


def replaced_operators(spec: LanguageModelSpec, kind: str) -> dict[str, int]:
    """Numbers of the operators that are mixers of a kind, by decision: ``mixer1`` is the model's first mixer.

    Raises:
        SpaceError: If there is none.
    """
    mixers = [number for number, operator in enumerate(spec.operators) if operator.kind != FFN]
    found = {f"mixer{place}": number for place, number in enumerate(mixers, 1) if spec.operators[number].kind == kind}
    if not found:
        kinds = sorted({operator.kind for operator in spec.operators} - {FFN})
        raise SpaceError("the model has none of this kind", field="replaced", value=kind, allowed=kinds)
    return found


def check_sizes(alternatives: Iterable[Alternative], operators: Iterable[Operator]) -> None:
    """Raises SpaceError if a replacement cannot have the sizes that it would get, or is the mixer it replaces."""
    for operator in operators:
        for alternative in alternatives:
            made = alternative.of(operator)
            if made == operator:
                raise SpaceError(
                    "is the mixer that it would replace", field="mixers", value=alternative.name, allowed="others"
                )
            _check(made.sizes, alternative.name)


def _check(sizes: MixerSizes, name: str) -> None:
    if sizes.heads % sizes.kv_heads:
        raise SpaceError(
            f"does not divide the {sizes.heads} heads", field=f"mixers.{name}", value=f"kv_heads={sizes.kv_heads}"
        )
