"""Gated DeltaNet: the delta rule with a state that decays, and gated outputs.

Yang et al. (2412.06464); decay as in Mamba2. Values have as many features as keys (the paper's ``expand_v`` is 1).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from ..sizes import MixerSizes, Work
from ._attending import linear
from ._delta import CHUNK, delta_rule, delta_step
from ._recurrent import Decay, HeadNorm, ShortConvolution, unit
from .base import Mixer, Role, State, StateSpec

KERNEL = 4


class GatedDeltaNet(Mixer):
    """Keys and values of ``head_size`` features; heads share nothing."""

    kind: ClassVar[str] = "gated_deltanet"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        # One product for queries, keys, values, gates, rates and decays: a step waits for each product.
        self.inputs = linear(sizes.width, 4 * sizes.inner + 2 * sizes.heads)
        self.convolution = ShortConvolution(3 * sizes.inner, KERNEL)
        self.decay = Decay(sizes.heads)
        self.norm = HeadNorm(sizes.head_size)
        self.out = linear(sizes.inner, sizes.width)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        projected, gates, rates, steps = self._projected(x)
        mixed, recent = self.convolution(projected)
        queries, keys, values = self._heads(mixed)
        log_decay, _ = self.decay(steps)
        outputs, matrix = delta_rule(queries, keys, values, rates.sigmoid(), log_decay)
        return self._written(outputs, gates), (recent, matrix)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        projected, gates, rates, steps = self._projected(x)
        mixed, recent = self.convolution.step(projected, state[0])
        query, key, value = self._heads(mixed)
        log_decay, _ = self.decay(steps)
        decayed = state[1] * log_decay.exp()[..., None, None]
        output, matrix = delta_step(query, key, value, rates.sigmoid(), decayed)
        return self._written(output, gates), (recent, matrix)

    def _projected(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is convolved ``(..., 3 H D)``, gates ``(..., H D)``, and twice one number a head."""
        inner, heads = self.sizes.inner, self.sizes.heads
        convolved, gates, rates, steps = self.inputs(x).split([3 * inner, inner, heads, heads], dim=-1)
        return convolved, gates, rates, steps

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys of length 1, values: each ``(..., H, D)``."""
        heads = self.sizes.heads
        parts = mixed.unflatten(-1, (3 * heads, self.sizes.head_size))
        matched, values = parts.split([2 * heads, heads], dim=-2)
        queries, keys = unit(matched).chunk(2, dim=-2)
        return queries, keys, values

    def _written(self, outputs: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``(..., H, D)`` and gates ``(..., H D)`` to ``(..., C)``."""
        gated: torch.Tensor = self.out(self.norm(outputs).flatten(-2) * functional.silu(gates))
        return gated

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return (
            StateSpec("recent", (batch, KERNEL - 1, 3 * sizes.inner)),
            StateSpec("matrix", (batch, sizes.heads, sizes.head_size, sizes.head_size)),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters, kept = cls._weights(sizes), cls._kept(sizes)
        return Work(parameters, parameters + 4 * sizes.inner * sizes.head_size, kept, 2 * kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters, kept = cls._weights(sizes), cls._kept(sizes)
        a_token = sizes.inner * (5 * CHUNK + 5 * sizes.head_size) + sizes.heads * CHUNK * (CHUNK // 3 + 2)
        return Work(parameters, tokens * (parameters + a_token), kept, kept)

    @classmethod
    def _weights(cls, sizes: MixerSizes) -> int:
        a_head = 2 * sizes.width + Decay.PARAMETERS
        return sizes.width * 5 * sizes.inner + sizes.heads * a_head + 3 * KERNEL * sizes.inner + sizes.head_size

    @classmethod
    def _kept(cls, sizes: MixerSizes) -> int:
        return sizes.inner * (3 * (KERNEL - 1) + sizes.head_size)

    def projections(self) -> dict[str, torch.Tensor]:
        queries, keys, values = self.inputs.weight[: 3 * self.sizes.inner].chunk(3)
        return {"queries": queries, "keys": keys, "values": values, "out": self.out.weight}

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}
