"""DeltaNet: linear attention whose state learns by the delta rule.

Yang et al. (2406.06484): short convolutions, keys and queries of length 1, an RMS norm of each head's output.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ..sizes import MixerSizes, Work
from ._attending import linear
from ._delta import CHUNK, delta_rule, delta_step
from ._recurrent import HeadNorm, ShortConvolution, unit
from .base import Mixer, Role, State, StateSpec

KERNEL = 4


class DeltaNet(Mixer):
    """Keys and values of ``head_size`` features; heads share nothing."""

    kind: ClassVar[str] = "deltanet"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        # One product for queries, keys, values and rates: a step waits for each product.
        self.inputs = linear(sizes.width, 3 * sizes.inner + sizes.heads)
        self.convolution = ShortConvolution(3 * sizes.inner, KERNEL)
        self.norm = HeadNorm(sizes.head_size)
        self.out = linear(sizes.inner, sizes.width)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        projected, rates = self._projected(x)
        mixed, recent = self.convolution(projected)
        queries, keys, values = self._heads(mixed)
        outputs, matrix = delta_rule(queries, keys, values, rates.sigmoid())
        return self.out(self.norm(outputs).flatten(2)), (recent, matrix)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        projected, rates = self._projected(x)
        mixed, recent = self.convolution.step(projected, state[0])
        query, key, value = self._heads(mixed)
        output, matrix = delta_step(query, key, value, rates.sigmoid(), state[1])
        return self.out(self.norm(output).flatten(1)), (recent, matrix)

    def _projected(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is convolved ``(..., 3 H D)``, and one number a head."""
        convolved, rates = self.inputs(x).split([3 * self.sizes.inner, self.sizes.heads], dim=-1)
        return convolved, rates

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys of length 1, values: each ``(..., H, D)``."""
        heads = self.sizes.heads
        parts = mixed.unflatten(-1, (3 * heads, self.sizes.head_size))
        matched, values = parts.split([2 * heads, heads], dim=-2)
        queries, keys = unit(matched).chunk(2, dim=-2)
        return queries, keys, values

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return (
            StateSpec("recent", (batch, KERNEL - 1, 3 * sizes.inner)),
            StateSpec("matrix", (batch, sizes.heads, sizes.head_size, sizes.head_size)),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters, kept = cls._weights(sizes), cls._kept(sizes)
        return Work(parameters, parameters + 3 * sizes.inner * sizes.head_size, kept, 2 * kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters, kept = cls._weights(sizes), cls._kept(sizes)
        # Products of keys and queries with keys, their use (three of S x D); state to token and back (five of D x D).
        a_token = sizes.inner * (5 * CHUNK + 5 * sizes.head_size) + sizes.heads * CHUNK**2 // 3
        return Work(parameters, tokens * (parameters + a_token), kept, kept)

    @classmethod
    def _weights(cls, sizes: MixerSizes) -> int:
        return sizes.width * (4 * sizes.inner + sizes.heads) + 3 * KERNEL * sizes.inner + sizes.head_size

    @classmethod
    def _kept(cls, sizes: MixerSizes) -> int:
        return sizes.inner * (3 * (KERNEL - 1) + sizes.head_size)

    def projections(self) -> dict[str, torch.Tensor]:
        queries, keys, values = self.inputs.weight[: 3 * self.sizes.inner].chunk(3)
        return {"queries": queries, "keys": keys, "values": values, "out": self.out.weight}

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}
