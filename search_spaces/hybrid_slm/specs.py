"""A language model as data: what is built, exported, costed and rebuilt elsewhere. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...schema import Record
from .sizes import MixerSizes

FFN = "ffn"
"""Kind of an operator that mixes no tokens."""


@dataclass(frozen=True)
class Operator(Record):
    """One residual branch: a mixer or a feed-forward.

    Args:
        kind: A mixer's, see :func:`gnomon.search_spaces.hybrid_slm.mixers.mixer_kinds`, or ``ffn``.
        sizes: Of the mixer; of a feed-forward only ``width`` counts.
        ffn_width: Of a feed-forward.
        fan_in: Of a feed-forward: inputs of each output that are not zero, after SRigL; None for all.
    """

    SCHEMA: ClassVar[str] = ""

    kind: str
    sizes: MixerSizes
    ffn_width: int = 0
    fan_in: int | None = None


@dataclass(frozen=True)
class LanguageModelSpec(Record):
    """A decoder-only language model.

    Args:
        vocabulary: Number of tokens.
        width: Of the hidden state.
        operators: In order.
        tied: Whether the output layer is the embedding.
        meta_tokens: Learnt vectors that stand before every sequence (Hymba; Nemotron-Flash, section 3.4).
        max_length: Longest sequence, meta tokens not counted.
        exit_after: Number of operators after which there is an early exit with a norm of its own; 0 for none.
        skips: Whether routers may skip operators, decided on the prompt (FiRST).
    """

    SCHEMA: ClassVar[str] = "gnomon.language_model/1"

    vocabulary: int
    width: int
    operators: tuple[Operator, ...]
    tied: bool = True
    meta_tokens: int = 0
    max_length: int = 4096
    exit_after: int = 0
    skips: bool = False
