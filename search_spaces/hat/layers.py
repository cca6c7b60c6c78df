"""Layers of a transformer, whole sequences at once and token by token.

Layers normalise first ("pre-norm"): residual paths stay clean, so that shallow and deep sub-networks of
shared weights train at one learning rate, without the long warm-up of the original order.

The same classes make stand-alone networks and, from elastic linear layers and norms, the shared ones: a
layer reads its present number of heads, and its modules their present widths.

Shapes: S sentences, K beams of a sentence, T tokens, M tokens attended to, W width, H heads, D features of
a head (H x D = Q, the width of queries, keys and values).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import nn
from torch.nn import functional

MASKED = -1e4
"""Added to the scores of what must not be seen. Finite, so that a row without anything to see is no NaN."""

KeysValues: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Modules:
    """What layers are made of; a subclass gives elastic ones."""

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer, weights Xavier-uniform. Its bias starts off zero: exporters leave zeros out, and what a
        latency is measured on would not be what ships."""
        return initialised(nn.Linear(inputs, outputs))

    def norm(self, width: int) -> nn.LayerNorm:
        """A layer norm."""
        return nn.LayerNorm(width)


def initialised(layer: nn.Linear) -> nn.Linear:
    """The layer with Xavier-uniform weights, in place."""
    nn.init.xavier_uniform_(layer.weight)
    return layer


def heads_first(x: torch.Tensor, heads: int) -> torch.Tensor:
    """``(S, T, Q)`` to ``(S, H, T, D)``."""
    split: torch.Tensor = x.unflatten(-1, (heads, -1))
    return split.transpose(1, 2)


def attend(
    queries: torch.Tensor, keys_t: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Scaled dot-product attention (1706.03762, Equation 1).

    Args:
        queries: ``(..., T, D)``.
        keys_t: ``(..., D, M)``, transposed.
        values: ``(..., M, D)``.
        bias: Added to the scores ``(..., T, M)``; None for nothing.

    Returns:
        ``(..., T, D)``.
    """
    scores: torch.Tensor = torch.matmul(queries, keys_t) * (1.0 / math.sqrt(values.shape[-1]))
    if bias is not None:
        scores = scores + bias
    return torch.matmul(torch.softmax(scores, dim=-1), values)


class SelfAttention(nn.Module):
    """Attention of a sequence to itself. One matrix makes queries, keys and values."""

    def __init__(self, width: int, qkv_width: int, heads: int, make: Modules) -> None:
        super().__init__()
        self.heads, self.qkv_width = heads, qkv_width
        self.qkv = make.linear(width, 3 * qkv_width)
        self.out = make.linear(qkv_width, width)

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, KeysValues]:
        """``(S, T, W)`` to the same, and the keys and values ``(S, H, T, D)``."""
        queries, keys, values = (heads_first(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1))
        mixed = attend(queries, keys.transpose(-1, -2), values, bias)
        return self.out(mixed.transpose(1, 2).flatten(2)), (keys, values)

    def advance(
        self, x: torch.Tensor, beams: torch.Tensor, past: KeysValues, bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, KeysValues]:
        """One token a beam: ``(S x K, W)`` to the same, and the past with that token.

        Args:
            x: Rows, sentence by sentence.
            beams: Any tensor ``(S, K)``, for its shape.
            past: Keys and values ``(S, K, H, P, D)`` of the P tokens before.
            bias: ``(S, K, 1, 1, P + 1)`` or None.
        """
        shape = (*beams.shape, 3 * self.heads, 1, self.qkv_width // self.heads)
        queries, key, value = self.qkv(x).reshape(shape).chunk(3, dim=2)
        keys, values = torch.cat([past[0], key], dim=3), torch.cat([past[1], value], dim=3)
        mixed = attend(queries, keys.transpose(-1, -2), values, bias)
        return self.out(mixed.reshape(-1, self.qkv_width)), (keys, values)


class CrossAttention(nn.Module):
    """Attention of the target to the source."""

    def __init__(self, width: int, memory_width: int, qkv_width: int, heads: int, make: Modules) -> None:
        super().__init__()
        self.heads, self.qkv_width = heads, qkv_width
        self.q = make.linear(width, qkv_width)
        self.kv = make.linear(memory_width, 2 * qkv_width)
        self.out = make.linear(qkv_width, width)

    def keys_values(self, memory: torch.Tensor) -> KeysValues:
        """``(S, M, W)`` to keys ``(S, 1, H, D, M)``, transposed once for all steps, and values ``(S, 1, H, M, D)``;
        the axis of one is that of a sentence's beams, which read the same."""
        keys, values = (heads_first(part, self.heads) for part in self.kv(memory).chunk(2, dim=-1))
        return keys.transpose(-1, -2).contiguous().unsqueeze(1), values.contiguous().unsqueeze(1)

    def forward(self, x: torch.Tensor, memory: KeysValues, bias: torch.Tensor) -> torch.Tensor:
        """``(S, T, W)`` to the same; bias ``(S, 1, 1, 1, M)``."""
        keys, values = memory
        mixed = attend(heads_first(self.q(x), self.heads), keys.squeeze(1), values.squeeze(1), bias.squeeze(1))
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def advance(self, x: torch.Tensor, beams: torch.Tensor, memory: KeysValues, bias: torch.Tensor) -> torch.Tensor:
        """One token a beam ``(S x K, W)`` to the same."""
        queries = self.q(x).reshape(*beams.shape, self.heads, 1, self.qkv_width // self.heads)
        mixed = attend(queries, *memory, bias)
        result: torch.Tensor = self.out(mixed.reshape(-1, self.qkv_width))
        return result


class FeedForward(nn.Module):
    """Two linear layers with a ReLU between them."""

    def __init__(self, width: int, inner: int, make: Modules) -> None:
        super().__init__()
        self.inner = make.linear(width, inner)
        self.outer = make.linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., W)`` to the same."""
        result: torch.Tensor = self.outer(functional.relu(self.inner(x)))
        return result


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward."""

    def __init__(self, width: int, qkv_width: int, heads: int, ffn: int, dropout: float, make: Modules) -> None:
        super().__init__()
        self.self_norm, self.self_attention = make.norm(width), SelfAttention(width, qkv_width, heads, make)
        self.ffn_norm, self.ffn = make.norm(width), FeedForward(width, ffn, make)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """``(S, T, W)`` to the same."""
        x = x + self.dropout(self.self_attention(self.self_norm(x), bias)[0])
        result: torch.Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return result


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source where there is one, and feed-forward.

    Args:
        width, qkv_width, self_heads, ffn, dropout, make: As of :class:`EncoderLayer`.
        cross_heads: 0 for a layer that does not read the source.
        memory_width: Features of the source's tokens.
        attended: How many of the last encoder layers are read; an attribute that may change.
    """

    def __init__(
        self,
        width: int,
        qkv_width: int,
        self_heads: int,
        ffn: int,
        dropout: float,
        make: Modules,
        *,
        cross_heads: int = 0,
        memory_width: int = 0,
        attended: int = 0,
    ) -> None:
        super().__init__()
        self.attended = attended
        self.self_norm, self.self_attention = make.norm(width), SelfAttention(width, qkv_width, self_heads, make)
        self.cross_norm: nn.LayerNorm | None = None
        self.cross_attention: CrossAttention | None = None
        if cross_heads:
            self.cross_norm = make.norm(width)
            self.cross_attention = CrossAttention(width, memory_width, qkv_width, cross_heads, make)
        self.ffn_norm, self.ffn = make.norm(width), FeedForward(width, ffn, make)
        self.dropout = nn.Dropout(dropout)

    def memory(self, encoded: Sequence[torch.Tensor]) -> KeysValues:
        """Keys and values of the source, from the encoder layers' results ``(S, L, W)``, last one last; of a
        layer that reads it."""
        assert self.cross_attention is not None
        return self.cross_attention.keys_values(torch.cat(list(encoded[-self.attended :]), dim=1))

    def forward(
        self, x: torch.Tensor, bias: torch.Tensor, memory: KeysValues | None, memory_bias: torch.Tensor | None
    ) -> tuple[torch.Tensor, KeysValues]:
        """``(S, T, W)`` to the same, and keys and values ``(S, H, T, D)`` of its self-attention."""
        mixed, past = self.self_attention(self.self_norm(x), bias)
        x = x + self.dropout(mixed)
        if self.cross_attention is not None and self.cross_norm is not None:
            x = x + self.dropout(self.cross_attention(self.cross_norm(x), memory, memory_bias))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), past

    def advance(
        self,
        x: torch.Tensor,
        beams: torch.Tensor,
        past: KeysValues,
        bias: torch.Tensor | None,
        memory: KeysValues | None,
        memory_bias: torch.Tensor | None,
    ) -> tuple[torch.Tensor, KeysValues]:
        """One token a beam ``(S x K, W)`` to the same, and the past ``(S, K, H, P + 1, D)``."""
        mixed, past = self.self_attention.advance(self.self_norm(x), beams, past, bias)
        x = x + self.dropout(mixed)
        if self.cross_attention is not None and self.cross_norm is not None:
            assert memory is not None
            assert memory_bias is not None
            x = x + self.dropout(self.cross_attention.advance(self.cross_norm(x), beams, memory, memory_bias))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), past
