"""Tokens and positions as vectors, and vectors as scores of tokens.

Shapes: V tokens, W width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional

from ..sequence import PAD
from .specs import Vocabulary


class TokenTable(nn.Embedding):
    """A table of tokens of which a network uses the first columns; also the weights of an output layer."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__(tokens, width)
        nn.init.normal_(self.weight, std=width**-0.5)
        with torch.no_grad():
            self.weight[PAD].zero_()

    def embed(self, tokens: torch.Tensor, width: int) -> torch.Tensor:
        """Vectors ``(..., W)`` of tokens, scaled up as in 1706.03762, Section 3.4."""
        return functional.embedding(tokens, self._columns(width)) * math.sqrt(width)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(..., V)`` of vectors ``(..., W)``."""
        return functional.linear(x, self._columns(x.shape[-1]))

    def _columns(self, width: int) -> torch.Tensor:
        return self.weight if width == self.embedding_dim else self.weight[:, :width]


class Tables(nn.Module):
    """The tables of a network, some of them one and the same.

    Args:
        vocabulary: What there is.
        source_width, target_width: Largest features of a token on each side.
        widths: Widths for which positions are kept.
    """

    def __init__(self, vocabulary: Vocabulary, source_width: int, target_width: int, widths: Iterable[int]) -> None:
        super().__init__()
        self.max_length = vocabulary.max_length
        is_one = vocabulary.sharing == "all"
        self.target = TokenTable(vocabulary.target, max(source_width, target_width) if is_one else target_width)
        self.own_source = None if is_one else TokenTable(vocabulary.source, source_width)
        self.own_output = TokenTable(vocabulary.target, target_width) if vocabulary.sharing == "none" else None
        for width in sorted(set(widths)):
            self.register_buffer(f"positions{width}", sinusoids(vocabulary.max_length, width), persistent=False)

    def embed_source(self, tokens: torch.Tensor, positions: torch.Tensor, width: int) -> torch.Tensor:
        """``(..., W)`` of source tokens at their positions."""
        table = self.target if self.own_source is None else self.own_source
        return table.embed(tokens, width) + self._at(positions, width)

    def embed_target(self, tokens: torch.Tensor, positions: torch.Tensor, width: int) -> torch.Tensor:
        """``(..., W)`` of target tokens at their positions."""
        return self.target.embed(tokens, width) + self._at(positions, width)

    def scores(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of target tokens ``(..., V)``."""
        table = self.target if self.own_output is None else self.own_output
        return table.scores(x)

    def _at(self, positions: torch.Tensor, width: int) -> torch.Tensor:
        table: torch.Tensor = getattr(self, f"positions{width}")
        # A look-up, not a slice: the exporter would take the table's length for a limit of the axis.
        return functional.embedding(positions, table)


def sinusoids(length: int, width: int) -> torch.Tensor:
    """Positions ``(length, W)``: sines in the first half of the columns, cosines in the second (1706.03762,
    Section 3.5, the columns in another order)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) / max(half - 1, 1)))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
    table = torch.cat([angles.sin(), angles.cos(), torch.zeros(length, width - 2 * half, dtype=torch.float64)], dim=1)
    return table.to(torch.float32)
