"""Sparse attention over all of the context: a summary of every block, and the blocks that the summary points to.

The global part of native sparse attention (Yuan et al., 2502.11089, section 3), as the layers that alternate with local
ones have it (2511.00819). Departures: blocks of both branches are the same and do not overlap; a summary is linear in
the tokens of its block (one learnt weight a place and head), so that a step adds to it what the token brings; the
branches share keys and values, so that there is one cache.

What is saved without kernels of our own: the products of a decoded token with most of its context. What is not: the
cache of all tokens, as any block may be pointed to; and of a prompt nothing, which takes full attention and a mask.

Shapes: B sequences, T tokens, P tokens so far, H heads, K KV heads, G = H / K, D features of a head, S blocks,
N selected blocks.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn

from ....errors import SpaceError
from ..sizes import MixerSizes, Work
from ._attending import MASKED, attend, attend_fused_apart, causal_bias, linear
from .attention import Attention
from .base import Role, State, StateSpec

BLOCKS_IN_WINDOW = 8
FEWEST_SELECTED = 4
FORCED = 1e4
"""Importance of the first block and the present one, which are always selected; no share of a softmax comes near."""
LATER_WINS = 1e-9
"""Importance a block has for each one before it: whether a runtime prefers the first of equals must not matter."""


class BlockSparse(Attention):
    """Grouped-query attention to block summaries and to selected blocks, each weighted by a gate of the token and head.

    Selected are the first block, the present one, and those whose summaries the heads of a KV head attend to most;
    about as many tokens as ``sizes.window``. ``sizes.max_length`` bounds the number of summaries, which are there from
    the first token on. Two runtimes may select differently where blocks matter equally, to within rounding.
    """

    kind: ClassVar[str] = "block_sparse"
    branches: ClassVar[int] = 2

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        _check(sizes)
        block = block_size(sizes)
        self.pool_k = nn.Parameter(torch.full((sizes.kv_heads, block), 1.0 / block))
        self.pool_v = nn.Parameter(torch.full((sizes.kv_heads, block), 1.0 / block))
        self.gate = linear(sizes.width, sizes.heads * self.branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._sequence(x, fused=True)[0]

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        return self._sequence(x, fused=False)

    def _sequence(self, x: torch.Tensor, fused: bool) -> tuple[torch.Tensor, State]:
        positions = torch.arange(x.shape[1], device=x.device)
        queries, keys, values = self._projected(x, positions)
        summaries = self._pooled(keys, self.pool_k, positions), self._pooled(values, self.pool_v, positions)
        mixed, importance = self._summarised(queries, summaries, positions)
        blocks = torch.zeros_like(importance).scatter(-1, self._selected(importance, positions), 1.0)
        visible = (blocks.index_select(-1, positions // block_size(self.sizes)) > 0) & (causal_bias(positions) == 0)
        if fused:
            selected = attend_fused_apart(queries, keys, values, visible)
        else:
            selected = attend(queries, keys, values, torch.where(visible, 0.0, MASKED)[:, :, None])
        branches = [mixed, selected, *self._more_in_sequence(queries, keys, values, fused)]
        return self.out(self._gated(x, branches)), (keys, values, *summaries)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, key, value = self._projected(x[:, None], position)
        keys, values = torch.cat([state[0], key], dim=2), torch.cat([state[1], value], dim=2)
        summaries = (
            self._added(state[2], key, self.pool_k, position),
            self._added(state[3], value, self.pool_v, position),
        )
        mixed, importance = self._summarised(queries, summaries, position)
        rows, bias = self._selected_rows(self._selected(importance, position), position)
        branches = [mixed, attend(queries, _rows_of(keys, rows), _rows_of(values, rows), bias)]
        branches += self._more_in_step(queries, keys, values, position)
        return self.out(self._gated(x[:, None], branches))[:, 0], (keys, values, *summaries)

    # ---- What a kind with further branches refines ---------------------------------------------

    def _more_in_sequence(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, fused: bool
    ) -> list[torch.Tensor]:
        """Further branches ``(B, T, H D)`` of all tokens at once, by torch's own kernel if ``fused``."""
        return []

    def _more_in_step(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: torch.Tensor
    ) -> list[torch.Tensor]:
        """The same branches ``(B, 1, H D)`` of a step; keys and values ``(B, K, P + 1, D)``."""
        return []

    @classmethod
    def _more_tokens(cls, sizes: MixerSizes) -> int:
        """That further branches see of a step, at most."""
        return 0

    # ---- Branches ------------------------------------------------------------------------------

    def _gated(self, x: torch.Tensor, branches: list[torch.Tensor]) -> torch.Tensor:
        heads: torch.Tensor = torch.stack([branch.unflatten(-1, (self.sizes.heads, -1)) for branch in branches], dim=-1)
        gates: torch.Tensor = torch.sigmoid(self.gate(x)).unflatten(-1, (self.sizes.heads, 1, -1))
        return (heads * gates).sum(-1).flatten(2)

    def _pooled(self, x: torch.Tensor, weights: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Summaries ``(B, K, S, D)`` of ``(B, K, T, D)``, as a product: no length need be a multiple of the block."""
        block = block_size(self.sizes)
        in_block = positions // block == torch.arange(block_count(self.sizes), device=x.device)[:, None]
        placed = weights.index_select(1, torch.remainder(positions, block))
        return torch.where(in_block, placed[:, None], 0.0) @ x

    def _added(
        self, summaries: torch.Tensor, row: torch.Tensor, weights: torch.Tensor, position: torch.Tensor
    ) -> torch.Tensor:
        """Summaries with one more token ``(B, K, 1, D)``."""
        block = block_size(self.sizes)
        slot = position // block
        grown = (
            summaries.index_select(2, slot) + weights.index_select(1, torch.remainder(position, block))[..., None] * row
        )
        return summaries.scatter(2, slot.expand(row.shape), grown)

    def _summarised(
        self, queries: torch.Tensor, summaries: tuple[torch.Tensor, torch.Tensor], positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attention to the blocks that are complete ``(B, T, H D)``, and how much of it each gets ``(B, K, T, S)``."""
        keys, values = summaries
        block = block_size(self.sizes)
        ends = torch.arange(1, block_count(self.sizes) + 1, device=positions.device) * block - 1
        rows = queries.unflatten(1, (self.sizes.kv_heads, -1))
        scores = rows @ keys[:, :, None].transpose(-1, -2) * (1.0 / math.sqrt(self.sizes.head_size))
        shares = torch.softmax(scores + torch.where(ends > positions[:, None], MASKED, 0.0), dim=-1)
        # Before the first block is complete there is nothing to attend to.
        mixed = shares @ values[:, :, None] * (positions[:, None] >= block - 1)
        return mixed.flatten(1, 2).transpose(1, 2).flatten(2), shares.sum(2)

    # ---- Selection -----------------------------------------------------------------------------

    def _selected(self, importance: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Numbers of blocks ``(B, K, T, N)``; later than the present one where there are not enough."""
        numbers = torch.arange(block_count(self.sizes), device=positions.device)
        present = (positions // block_size(self.sizes))[:, None]
        forced = torch.where((numbers == present) | (numbers == 0), FORCED, numbers * LATER_WINS)
        forced = torch.where(numbers > present, -FORCED, forced)
        return torch.topk(importance.detach() + forced, selected_count(self.sizes), dim=-1).indices

    def _selected_rows(self, blocks: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of blocks ``(B, K, 1, N)`` the tokens ``(B, K, N block)``, and a bias that hides those yet to come."""
        block = block_size(self.sizes)
        rows = (blocks[:, :, 0, :, None] * block + torch.arange(block, device=blocks.device)).flatten(2)
        hidden = rows > position
        return torch.where(hidden, 0, rows), torch.where(hidden, MASKED, 0.0)[:, :, None, None]

    # ---- What it costs -------------------------------------------------------------------------

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        summaries = (batch, sizes.kv_heads, block_count(sizes), sizes.head_size)
        return (
            *super().state_specs(sizes, batch, past),
            StateSpec("key_summaries", summaries),
            StateSpec("value_summaries", summaries),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        seen = block_count(sizes) + selected_count(sizes) * block_size(sizes) + cls._more_tokens(sizes)
        parameters, products = cls._weights(sizes)
        kept = 2 * (past + 1 + block_count(sizes)) * sizes.kv_inner
        return Work(parameters, products + 2 * seen * sizes.inner, kept, 2 * seen * sizes.kv_inner)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters, products = cls._weights(sizes)
        dense = 2 * (cls.branches - 1) * tokens**2 * sizes.inner
        summaries = 2 * block_count(sizes) * tokens * (sizes.inner + sizes.kv_inner)
        kept = 2 * (tokens + block_count(sizes)) * sizes.kv_inner
        return Work(parameters, tokens * products + dense + summaries, kept, kept)

    @classmethod
    def _weights(cls, sizes: MixerSizes) -> tuple[int, int]:
        """Number of parameters, and of those that are in matrices."""
        matrices = 2 * sizes.width * (sizes.inner + sizes.kv_inner) + sizes.width * sizes.heads * cls.branches
        return matrices + 2 * sizes.kv_heads * block_size(sizes), matrices

    def roles(self) -> dict[str, Role]:
        return super().roles() | {"gate.weight": "reads"}


def block_size(sizes: MixerSizes) -> int:
    """Tokens of a block: an eighth of the window, at least two."""
    return max(2, sizes.window // BLOCKS_IN_WINDOW)


def block_count(sizes: MixerSizes) -> int:
    """Blocks of the longest sequence."""
    return -(-sizes.max_length // block_size(sizes))


def selected_count(sizes: MixerSizes) -> int:
    """Blocks that a token selects."""
    return max(FEWEST_SELECTED, sizes.window // block_size(sizes))


def _rows_of(x: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``(B, K, P, D)`` at rows ``(B, K, M)``: one Gather of whole rows; element by element takes ten times as long."""
    batch, heads, tokens = x.shape[:3]
    starts = (torch.arange(batch * heads, device=x.device) * tokens).unflatten(0, (batch, heads))
    chosen = x.flatten(0, 2).index_select(0, (rows + starts[..., None]).flatten())
    table: torch.Tensor = chosen.unflatten(0, rows.shape)
    return table


def _check(sizes: MixerSizes) -> None:
    if sizes.window < 2:
        raise SpaceError("has no room for a block", field="window", value=sizes.window, allowed="2 or more")
    if block_count(sizes) < selected_count(sizes):
        raise SpaceError(
            "is too short to select blocks from",
            field="max_length",
            value=sizes.max_length,
            allowed=f"more than {(selected_count(sizes) - 1) * block_size(sizes)}, or a smaller window",
        )
