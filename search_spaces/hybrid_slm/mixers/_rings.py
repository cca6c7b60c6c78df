"""The last tokens of a sequence, in a tensor that never grows: token t is in slot t modulo W.

What attends does not care for the order of its keys, so a new token replaces one row and nothing is moved.

Shapes: B sequences, T tokens, W slots.
"""

from __future__ import annotations

import torch


def ring_of(x: torch.Tensor, slots: int) -> torch.Tensor:
    """The last tokens of ``(B, ..., T, D)`` as ``(B, ..., W, D)``; zeros where there are none yet."""
    last = x.shape[-2] - 1
    tokens = tokens_in_ring(torch.full((1,), last, device=x.device), slots)
    kept = x.index_select(-2, tokens.clamp(min=0))
    return torch.where((tokens >= 0)[:, None], kept, 0.0)


def put_in_ring(ring: torch.Tensor, row: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """``ring`` ``(B, ..., W, D)`` with ``row`` ``(B, ..., 1, D)`` as its token number ``position`` (1,)."""
    slot = torch.remainder(position, ring.shape[-2]).expand(row.shape)
    return ring.scatter(-2, slot, row)


def tokens_in_ring(position: torch.Tensor, slots: int) -> torch.Tensor:
    """Number of the token in each slot ``(W,)`` once token ``position`` (1,) is in; negative where there is none."""
    return position - torch.remainder(position - torch.arange(slots, device=position.device), slots)
