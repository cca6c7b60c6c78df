"""The sizes that a transformer space offers, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ...errors import SpaceError
from ..sequence import SPECIAL_TOKENS
from .specs import SHARING, Sharing, Vocabulary


@dataclass(frozen=True)
class Sizes:
    """What each decision may be, ascending.

    Args:
        widths: Features of a token, in the encoder and in the decoder.
        ffn_widths: Features between the two linear layers of a feed-forward.
        heads: Heads of an attention.
        encoder_layers: Numbers of layers; empty for a decoder-only space.
        decoder_layers: Numbers of layers.
        attended: How many of the last encoder layers a decoder layer may attend to; empty without encoder.
        qkv_width: Features of all heads together, which they split.
    """

    widths: tuple[int, ...]
    ffn_widths: tuple[int, ...]
    heads: tuple[int, ...]
    encoder_layers: tuple[int, ...]
    decoder_layers: tuple[int, ...]
    attended: tuple[int, ...]
    qkv_width: int

    def __post_init__(self) -> None:
        uneven = [heads for heads in self.heads if self.qkv_width % heads]
        if uneven:
            raise SpaceError("heads do not divide qkv_width", field="heads", value=uneven, allowed=self.divisors)
        if not self.encoder_layers:
            return
        if self.attended[0] > self.encoder_layers[0] or self.attended[-1] > self.encoder_layers[-1]:
            raise SpaceError(
                "more layers than the encoders have",
                field="attended",
                value=self.attended,
                allowed=f"up to {self.encoder_layers[-1]}, the first one up to {self.encoder_layers[0]}",
            )

    @property
    def divisors(self) -> list[int]:
        """What the heads may be."""
        return [n for n in range(1, self.qkv_width + 1) if self.qkv_width % n == 0]


def checked_choices(field: str, value: object) -> tuple[int, ...]:
    """Choices as a tuple.

    Raises:
        SpaceError: If they are not ascending positive integers.
    """
    choices: tuple[Any, ...] = tuple(value) if isinstance(value, Iterable) else ()
    is_valid = bool(choices) and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in choices)
    if not is_valid or list(choices) != sorted(set(choices)):
        raise SpaceError("not choices", field=field, value=value, allowed="ascending integers of 1 or more")
    return choices


def checked_count(field: str, value: Any, smallest: int = 1) -> int:
    """``value`` itself.

    Raises:
        SpaceError: If it is not an integer of ``smallest`` or more.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < smallest:
        raise SpaceError("not a count", field=field, value=value, allowed=f"an integer of {smallest} or more")
    return value


def checked_dropout(value: float) -> float:
    """``value`` itself.

    Raises:
        SpaceError: If it is not a probability below 1.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
        raise SpaceError("not a probability", field="dropout", value=value, allowed="0 to below 1")
    return float(value)


def checked_vocabulary(source: int, target: int, sharing: Sharing, max_length: int) -> Vocabulary:
    """The tables of a space.

    Raises:
        SpaceError: If a size is none, or tables are to be shared between different vocabularies.
    """
    sizes = [
        checked_count(field, size, len(SPECIAL_TOKENS) + 1)
        for field, size in (("source_vocabulary", source), ("target_vocabulary", target))
    ]
    if sharing not in SHARING:
        raise SpaceError("unknown", field="shared_embeddings", value=sharing, allowed=SHARING)
    if sharing == "all" and sizes[0] != sizes[1]:
        raise SpaceError(
            "source and target have different vocabularies",
            field="shared_embeddings",
            value=sharing,
            allowed="none or target, or vocabularies of one size",
        )
    return Vocabulary(sizes[0], sizes[1], sharing, checked_count("max_length", max_length))
