"""S2-Attention: every head sees the last blocks, and of the older ones those that are its own; together they see all.

Lin et al. (2407.17678). Older blocks are dealt out in turn: block j belongs to head j modulo the number of KV heads, so
that the stride is that number and the heads together cover the context exactly once. It is KV heads that own blocks, as
query heads that share keys must see the same ones for a cache to shrink.

What is saved without kernels of our own: the cache of older tokens, where each is kept for its one owner, and the
products of a decoded token with them. What is not: a prompt takes the products of full attention, and a mask.

Shapes: B sequences, T tokens, P tokens so far, K KV heads, D features of a head, W tokens of the window, M rows.
"""

from __future__ import annotations

import math
from typing import ClassVar, TypeAlias

import torch

from ....errors import SpaceError
from ..sizes import MixerSizes, Work
from ._attending import MASKED, attend, attend_fused_apart
from ._rings import put_in_ring, ring_of, tokens_in_ring
from .attention import Attention
from .base import State, StateSpec

LOCAL_BLOCKS = 8
"""Blocks that all heads see, the present one included; a window of 512 has blocks of 64 tokens, as in the paper."""


class StridedSparseAttention(Attention):
    """Grouped-query attention over ``sizes.window`` tokens, in whole blocks, and the older blocks of each KV head.

    The state is a ring of the last tokens with the keys and values of all heads, and the keys and values of every token
    for the owner of its block, which grow by one row a token.
    """

    kind: ClassVar[str] = "s2_attention"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        _check(sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        mixed = attend_fused_apart(*self._projected(x, positions), self._visible(positions)[None])
        y: torch.Tensor = self.out(mixed)
        return y

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        positions, window = torch.arange(x.shape[1], device=x.device), self.sizes.window
        queries, keys, values = self._projected(x, positions)
        mixed = attend(queries, keys, values, torch.where(self._visible(positions), 0.0, MASKED)[:, None])
        state = (ring_of(keys, window), ring_of(values, window), self._owned(keys), self._owned(values))
        return self.out(mixed), state

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, key, value = self._projected(x[:, None], position)
        owner = self._owner(position)
        local = put_in_ring(state[0], key, position), put_in_ring(state[1], value, position)
        older = (
            torch.cat([state[2], key.index_select(1, owner)[:, 0]], dim=1),
            torch.cat([state[3], value.index_select(1, owner)[:, 0]], dim=1),
        )
        rows, hidden = self._older_rows(older[0].shape[1], position)
        # Flat rows are one Gather of whole rows; a table of them would be transposed, gathered and transposed again.
        keys, values = (far.index_select(1, rows.flatten()).unflatten(1, rows.shape) for far in older)
        mixed = _attend_both(
            queries, (local[0], keys), (local[1], values), (self._ring_bias(position), hidden[:, None])
        )
        return self.out(mixed), (*local, *older)

    # ---- Who sees what -------------------------------------------------------------------------

    def _owner(self, positions: torch.Tensor) -> torch.Tensor:
        """KV head of which a token is kept beyond the window."""
        return torch.remainder(positions // block_size(self.sizes), self.sizes.kv_heads)

    def _owned(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, K, T, D)`` to ``(B, T, D)``: each token's row of its owner."""
        owner = self._owner(torch.arange(x.shape[2], device=x.device))
        mine = owner == torch.arange(self.sizes.kv_heads, device=x.device)[:, None]
        return torch.where(mine[..., None], x, 0.0).sum(1)

    def _visible(self, positions: torch.Tensor) -> torch.Tensor:
        """``(K, T, T)``, of a whole sequence."""
        blocks = positions // block_size(self.sizes)
        heads = torch.arange(self.sizes.kv_heads, device=positions.device)[:, None]
        own = (torch.remainder(blocks, self.sizes.kv_heads) == heads)[:, None]
        local = blocks[:, None] - blocks < self.sizes.window // block_size(self.sizes)
        return (local | own) & (positions[:, None] >= positions)

    def _ring_bias(self, position: torch.Tensor) -> torch.Tensor:
        """``(W,)``: while the block of ``position`` is not full, the ring holds the rest of one that is too old."""
        block = block_size(self.sizes)
        first = (position // block + 1) * block - self.sizes.window
        tokens = tokens_in_ring(position, self.sizes.window)
        return torch.where((tokens < 0) | (tokens < first), MASKED, 0.0)

    def _older_rows(self, tokens: int, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each KV head the rows ``(K, M)`` of its older blocks, and what hides those that are not older.

        M is a multiple of the block, at least one: a graph has no branch for a short context.
        """
        block, heads, local = block_size(self.sizes), self.sizes.kv_heads, self.sizes.window // block_size(self.sizes)
        columns = torch.sym_max((tokens - 1) // block - local, 0) // heads + 1
        cells = torch.arange(columns * block, device=position.device)
        blocks = cells // block * heads + torch.arange(heads, device=position.device)[:, None]
        hidden = blocks > position // block - local
        rows = blocks * block + torch.remainder(cells, block)
        return torch.where(hidden, 0, rows), torch.where(hidden, MASKED, 0.0)

    # ---- What it costs -------------------------------------------------------------------------

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        ring = (batch, sizes.kv_heads, sizes.window, sizes.head_size)
        older = (batch, past, sizes.head_size)
        return (
            StateSpec("keys", ring),
            StateSpec("values", ring),
            StateSpec("older_keys", older, grows=1),
            StateSpec("older_values", older, grows=1),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters = 2 * sizes.width * (sizes.inner + sizes.kv_inner)
        block = block_size(sizes)
        columns = max(past // block - sizes.window // block, 0) // sizes.kv_heads + 1
        seen = sizes.window + columns * block
        return Work(
            parameters, parameters + 2 * seen * sizes.inner, cls._kept(sizes, past + 1), 2 * seen * sizes.kv_inner
        )

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        full, kept = super().prefill_work(sizes, tokens), cls._kept(sizes, tokens)
        return Work(full.parameters, full.macs, kept, kept)

    @staticmethod
    def _kept(sizes: MixerSizes, tokens: int) -> int:
        return 2 * (sizes.window * sizes.kv_inner + tokens * sizes.head_size)


def block_size(sizes: MixerSizes) -> int:
    """Tokens of a block: an eighth of the window, at least one."""
    return max(1, sizes.window // LOCAL_BLOCKS)


_Two: TypeAlias = tuple[torch.Tensor, torch.Tensor]


def _attend_both(queries: torch.Tensor, keys: _Two, values: _Two, biases: _Two) -> torch.Tensor:
    """One softmax over two lots of keys that are not copied together: queries ``(B, H, 1, D)`` to ``(B, H D)``.

    Keys and values are ``(B, K, M, D)``; biases broadcast to ``(B, K, H / K, M)``.
    """
    rows = queries.unflatten(1, (keys[0].shape[1], -1)).flatten(2, 3) * (1.0 / math.sqrt(queries.shape[-1]))
    scores = [rows @ each.transpose(-1, -2) + bias for each, bias in zip(keys, biases, strict=True)]
    shares = torch.softmax(torch.cat(scores, dim=-1), dim=-1)
    first = keys[0].shape[2]
    mixed: torch.Tensor = shares[..., :first] @ values[0] + shares[..., first:] @ values[1]
    return mixed.flatten(1)


def _check(sizes: MixerSizes) -> None:
    if sizes.kv_heads < 2:
        raise SpaceError(
            "one KV head owns all blocks and shares nothing out",
            field="kv_heads",
            value=sizes.kv_heads,
            allowed="2 or more",
        )
    if sizes.window < 1 or sizes.window % block_size(sizes):
        raise SpaceError(
            "is not made of whole blocks",
            field="window",
            value=sizes.window,
            allowed=f"multiples of {block_size(sizes)}",
        )
