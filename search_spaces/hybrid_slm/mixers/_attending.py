"""What mixers that attend to keys share: projections, rotary positions, the products themselves.

Shapes: B sequences, T queries, M keys, H heads, K heads of keys, D features of a head.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from ....errors import SpaceError
from ..sizes import MixerSizes

MASKED = -1e9
"""Added to the scores of what must not be seen. Finite, so that no row is NaN."""
ROPE_BASE = 10_000.0


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A projection without bias, normal with deviation 1/sqrt(inputs)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(layer.weight, std=inputs**-0.5)
    return layer


def check_heads(sizes: MixerSizes) -> None:
    """Raises SpaceError if heads cannot share keys, or have no halves to rotate."""
    if sizes.kv_heads < 1 or sizes.heads % sizes.kv_heads:
        allowed = f"divisors of {sizes.heads}"
        raise SpaceError("does not divide the heads", field="kv_heads", value=sizes.kv_heads, allowed=allowed)
    if sizes.head_size % 2:
        raise SpaceError("is odd: rotary positions need halves", field="head_size", value=sizes.head_size)


class Rotary(nn.Module):
    """Rotary positions (Su et al., 2104.09864), halves rotated against each other.

    Cosines and sines are constant tables: frequencies that a graph computes cost 2e-4 at position 4096.

    Args:
        size: Features that are rotated.
        max_length: Number of positions.
    """

    def __init__(self, size: int, max_length: int) -> None:
        super().__init__()
        frequencies = ROPE_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        angles = torch.arange(max_length, dtype=torch.float64)[:, None] * frequencies
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, dim=-1).float(), persistent=False)
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, dim=-1).float(), persistent=False)

    def forward(self, x: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """``(..., T, D)`` at ``positions`` (T,)."""
        cos, sin = self.cos[positions], self.sin[positions]  # type: ignore[index]
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat([-second, first], dim=-1) * sin


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """``(B, T, H D)`` to ``(B, H, T, D)``."""
    parts: torch.Tensor = x.unflatten(-1, (heads, -1))
    return parts.transpose(1, 2)


def attend(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Softmax attention of query heads that share keys.

    Args:
        queries: ``(B, H, T, D)``.
        keys, values: ``(B, K, M, D)``; K divides H.
        bias: Added to the scores ``(T, M)`` or whatever broadcasts to ``(B, K, H / K, T, M)``; None for nothing.

    Returns:
        ``(B, T, H D)``.
    """
    # Heads that share keys are rows of one product: read once, they decode a fourth faster than as a broadcast.
    per_keys = (queries.shape[1] // keys.shape[1], queries.shape[2])
    rows: torch.Tensor = queries.unflatten(1, (keys.shape[1], -1)).flatten(2, 3) * (1.0 / math.sqrt(queries.shape[-1]))
    scores: torch.Tensor = rows @ keys.transpose(-1, -2)
    if bias is not None:
        scores = (scores.unflatten(2, per_keys) + bias).flatten(2, 3)
    mixed: torch.Tensor = (torch.softmax(scores, dim=-1) @ values).unflatten(2, per_keys)
    return mixed.flatten(1, 2).transpose(1, 2).flatten(2)


def attend_fused(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor | None
) -> torch.Tensor:
    """:func:`attend` of a sequence to itself by torch's own kernel: three to four times as fast to train on a CPU.
    Exports keep to plain products, which every runtime knows.

    Args:
        queries: ``(B, H, T, D)``.
        keys, values: ``(B, K, T, D)``; K divides H.
        visible: What each token sees ``(T, T)`` or ``(H, T, T)``; None for itself and all before.

    Returns:
        ``(B, T, H D)``.
    """
    if visible is not None and visible.ndim == 3:
        visible = visible[
            None
        ]  # torch's fast kernel takes masks of two or of four axes, and is silently slow with three.
    mixed = functional.scaled_dot_product_attention(
        queries, keys, values, attn_mask=visible, is_causal=visible is None, enable_gqa=True
    )
    return mixed.transpose(1, 2).flatten(2)


def attend_fused_apart(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, visible: torch.Tensor
) -> torch.Tensor:
    """:func:`attend_fused` where heads of keys differ in what is visible: ``(B, K, T, T)`` or ``(1, K, T, T)``.

    Each head of keys is a sequence of its own to the kernel, so that the mask is not repeated for heads of queries.
    """
    batch, kv_heads = keys.shape[:2]
    mixed: torch.Tensor = attend_fused(
        queries.unflatten(1, (kv_heads, -1)).flatten(0, 1),
        keys.flatten(0, 1)[:, None],
        values.flatten(0, 1)[:, None],
        visible.expand(batch, -1, -1, -1).flatten(0, 1)[:, None],
    ).unflatten(0, (batch, kv_heads))
    return mixed.transpose(1, 2).flatten(2)


def causal_bias(positions: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """What is added to scores ``(T, T)``: nothing for a token itself and those before, of them at most ``window``."""
    distance = positions[:, None] - positions[None, :]
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.where(hidden, MASKED, 0.0)
