"""What operators of a language model are made from, and what they cost. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...schema import Record


@dataclass(frozen=True)
class MixerSizes(Record):
    """Sizes that all mixers are made from; each takes what it needs.

    Args:
        width: Of the hidden state.
        heads: Of queries, and of the states of linear mixers.
        kv_heads: Of keys and values, where heads may share them; divides ``heads``.
        head_size: Features of a head; ``heads * head_size`` need not be ``width``.
        window: Tokens that a local mixer sees, the present one included.
        max_length: Longest sequence, for tables of positions.
    """

    SCHEMA: ClassVar[str] = ""

    width: int
    heads: int
    kv_heads: int
    head_size: int
    window: int = 512
    max_length: int = 4096

    @property
    def inner(self) -> int:
        """Width of queries."""
        return self.heads * self.head_size

    @property
    def kv_inner(self) -> int:
        """Width of keys and of values."""
        return self.kv_heads * self.head_size


@dataclass(frozen=True)
class Work:
    """What one operator costs, for one sequence.

    Args:
        parameters: All of them, biases and gates included.
        macs: Multiply-accumulates: of a token at a given context, or of a whole prefill.
        state_elements: Numbers that are kept from one token to the next.
        state_traffic: Numbers of the state that a step reads and writes; of a prefill, what it writes.
    """

    parameters: int
    macs: float
    state_elements: float
    state_traffic: float
