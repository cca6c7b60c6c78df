"""What models of token sequences share with whoever trains, decodes or measures them.

Shapes: B sentences (or beams), S source tokens, T target tokens, V target vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch

PAD, BEGIN, END, UNKNOWN = 0, 1, 2, 3
"""Token ids that every vocabulary reserves: padding, begin and end of a sentence, anything unknown."""
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
"""Names of these tokens, in the order of their ids."""

DecodingState: TypeAlias = Any
"""What a model carries from one generated token to the next; only the model looks inside."""


class SequenceToSequence(Protocol):
    """A model that writes a target sequence for a source sequence, all of it at once or token by token.

    Tokens are int64. Sources are ``(B, S)``, ended by ``END`` and filled up with ``PAD``.
    """

    def __call__(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, T, V)`` of the token after each of ``target`` ``(B, T)``, which begins with ``BEGIN``."""

    def start(self, source: torch.Tensor) -> DecodingState:
        """Reads the sources once."""

    def step(self, tokens: torch.Tensor, state: DecodingState) -> tuple[torch.Tensor, DecodingState]:
        """Logits ``(B, V)`` of the token after ``tokens`` ``(B,)``, and the state that follows."""

    def reorder(self, state: DecodingState, rows: torch.Tensor) -> DecodingState:
        """The state whose rows are ``rows`` ``(B',)`` of this one: how beams are chosen and multiplied."""
