"""Attention to a window without the products outside it: blocks of queries, each with two blocks of keys.

Shapes: B sequences, T tokens, H heads, K heads of keys, D features of a head, W tokens of the window, N blocks.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from ._attending import attend_fused


def attend_in_bands(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, window: int) -> torch.Tensor:
    """:func:`attend_fused` with a window, in time that is linear in the tokens. Not for exports: it looks at lengths.

    Args:
        queries: ``(B, H, T, D)``.
        keys, values: ``(B, K, T, D)``; K divides H.
        window: Tokens that each sees, itself included.

    Returns:
        ``(B, T, H D)``.
    """
    tokens = queries.shape[2]
    if tokens <= window:
        return attend_fused(queries, keys, values, None)
    first = attend_fused(queries[:, :, :window], keys[:, :, :window], values[:, :, :window], None)
    count = -(-tokens // window)
    queries, keys, values = (
        functional.pad(each, (0, 0, 0, count * window - tokens)) for each in (queries, keys, values)
    )
    places = torch.arange(2 * window, device=queries.device)
    distance = places[window:, None] - places
    mixed = attend_fused(
        _blocks(queries[:, :, window:], window, window),
        _blocks(keys, 2 * window, window),
        _blocks(values, 2 * window, window),
        (distance >= 0) & (distance < window),
    )
    rest = mixed.unflatten(0, (-1, count - 1)).flatten(1, 2)[:, : tokens - window]
    return torch.cat([first, rest], dim=1)


def _blocks(x: torch.Tensor, size: int, stride: int) -> torch.Tensor:
    """``(B, H, T, D)`` as ``(B N, H, size, D)``."""
    return x.unfold(2, size, stride).permute(0, 2, 1, 4, 3).flatten(0, 1)
