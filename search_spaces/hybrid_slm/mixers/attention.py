"""Softmax attention over all tokens before, with heads that share keys and values.

Vaswani et al. (1706.03762), grouped as in Ainslie et al. (2305.13245), rotary positions. As many heads of keys as of
queries is multi-head attention; one is multi-query attention.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ..sizes import MixerSizes, Work
from ._attending import Rotary, attend, attend_fused, causal_bias, check_heads, linear, split_heads
from .base import Mixer, Role, State, StateSpec


class Attention(Mixer):
    """Grouped-query attention; its cache of keys and values grows by concatenation."""

    kind: ClassVar[str] = "attention"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        check_heads(sizes)
        self.q = linear(sizes.width, sizes.inner)
        self.k = linear(sizes.width, sizes.kv_inner)
        self.v = linear(sizes.width, sizes.kv_inner)
        self.out = linear(sizes.inner, sizes.width)
        self.rotary = Rotary(sizes.head_size, sizes.max_length)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(x.shape[1], device=x.device)
        mixed: torch.Tensor = self.out(attend_fused(*self._projected(x, positions), self.visible(positions)))
        return mixed

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        positions = torch.arange(x.shape[1], device=x.device)
        queries, keys, values = self._projected(x, positions)
        return self.out(attend(queries, keys, values, causal_bias(positions))), (keys, values)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, key, value = self._projected(x[:, None], position)
        keys, values = torch.cat([state[0], key], dim=2), torch.cat([state[1], value], dim=2)
        return self.out(attend(queries, keys, values, None))[:, 0], (keys, values)

    def visible(self, positions: torch.Tensor) -> torch.Tensor | None:
        """What each token sees ``(T, T)`` or ``(H, T, T)``; None for itself and all before."""
        return None

    def _projected(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries ``(B, H, T, D)``, keys and values ``(B, K, T, D)``."""
        heads, kv_heads = self.sizes.heads, self.sizes.kv_heads
        queries = self.rotary(split_heads(self.q(x), heads), positions)
        keys = self.rotary(split_heads(self.k(x), kv_heads), positions)
        return queries, keys, split_heads(self.v(x), kv_heads)

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        shape = (batch, sizes.kv_heads, past, sizes.head_size)
        return (StateSpec("keys", shape, grows=2), StateSpec("values", shape, grows=2))

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters = 2 * sizes.width * (sizes.inner + sizes.kv_inner)
        kept = 2 * (past + 1) * sizes.kv_inner
        return Work(parameters, parameters + 2 * (past + 1) * sizes.inner, kept, kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters = 2 * sizes.width * (sizes.inner + sizes.kv_inner)
        kept = 2 * tokens * sizes.kv_inner
        return Work(parameters, tokens * parameters + 2 * tokens**2 * sizes.inner, kept, kept)

    def roles(self) -> dict[str, Role]:
        return {"q.weight": "reads", "k.weight": "reads", "v.weight": "reads", "out.weight": "writes"}
