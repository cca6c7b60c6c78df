"""Multi-head latent attention: one small latent vector and one rotated key a token, shared by all heads.

DeepSeek-V2 (2405.04434, section 2.1), without the compression of queries, as in its Lite version. With the latent as
large as the keys and values of ``kv_heads`` heads, two of these give DeepSeek's own ratio.

Shapes: B sequences, T tokens, P tokens so far, H heads, D features of a head, L features of the latent, R of the
rotated key.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ....errors import SpaceError
from ..sizes import MixerSizes, Work
from ._attending import Rotary, attend, attend_fused, causal_bias, linear, split_heads
from .base import Mixer, Role, State, StateSpec


class LatentAttention(Mixer):
    """A prompt is worked on with keys and values, which are made from the latents; a step never makes them.

    Both schedules of a step give the same numbers (Geens & Verhelst, 2506.02523): ``absorbs`` folds the matrix that
    makes keys into the query, so that the scores are taken with the latents themselves, and that of the values into
    the output; otherwise the keys and values of all tokens are made again at every step.
    """

    kind: ClassVar[str] = "mla"
    absorbs: ClassVar[bool] = True

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        _check(sizes)
        latent, rotated = latent_size(sizes), rotated_size(sizes)
        self.q = linear(sizes.width, sizes.heads * (sizes.head_size + rotated))
        self.down = linear(sizes.width, latent + rotated)
        self.norm = nn.RMSNorm(latent, eps=1e-6)
        self.up_k, self.up_v = linear(latent, sizes.inner), linear(latent, sizes.inner)
        self.out = linear(sizes.inner, sizes.width)
        self.rotary = Rotary(rotated, sizes.max_length)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        queries, latents = self._projected(x, torch.arange(x.shape[1], device=x.device))
        keys, values = self._made(latents)
        # torch's fast kernel wants values as wide as keys, and is silently slow with others.
        padded = functional.pad(values, (0, keys.shape[-1] - values.shape[-1]))
        mixed = attend_fused(queries, keys, padded, None).unflatten(-1, (self.sizes.heads, -1))
        y: torch.Tensor = self.out(mixed[..., : values.shape[-1]].flatten(2))
        return y

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        positions = torch.arange(x.shape[1], device=x.device)
        queries, latents = self._projected(x, positions)
        return self.out(attend(queries, *self._made(latents), causal_bias(positions))), (latents,)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, latent = self._projected(x[:, None], position)
        latents = torch.cat([state[0], latent], dim=1)
        mixed = self._absorbed(queries, latents) if self.absorbs else attend(queries, *self._made(latents), None)
        return self.out(mixed)[:, 0], (latents,)

    def _projected(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries ``(B, H, T, D + R)``, and ``(B, T, L + R)``: latents with the rotated key behind."""
        plain, rotated = self._parted(split_heads(self.q(x), self.sizes.heads), self.sizes.head_size)
        latents, keys = self._parted(self.down(x), latent_size(self.sizes))
        queries = torch.cat([plain, self.rotary(rotated, positions)], dim=-1)
        return queries, torch.cat([self.norm(latents), self.rotary(keys, positions)], dim=-1)

    def _made(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys ``(B, H, P, D + R)`` and values ``(B, H, P, D)``."""
        heads = self.sizes.heads
        plain, shared = self._parted(latents, latent_size(self.sizes))
        keys = torch.cat([split_heads(self.up_k(plain), heads), shared[:, None].expand(-1, heads, -1, -1)], dim=-1)
        return keys, split_heads(self.up_v(plain), heads)

    def _absorbed(self, queries: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """``(B, 1, H D)`` of one token, with the latents as the only keys and values: multi-query attention."""
        heads, head_size, latent = self.sizes.heads, self.sizes.head_size, latent_size(self.sizes)
        plain, rotated = self._parted(queries, head_size)
        absorbed = torch.cat([plain @ self.up_k.weight.unflatten(0, (heads, head_size)), rotated], dim=-1)
        # attend() divides by the root of what it sees; the scores are still those of D + R features.
        absorbed = absorbed * math.sqrt(latents.shape[-1] / queries.shape[-1])
        mixed = attend(absorbed, latents[:, None], latents[:, None], None).unflatten(-1, (heads, -1))
        # The weighted sum of the rotated keys is thrown away: cheaper than a copy of the latents without them.
        values: torch.Tensor = mixed[..., :latent].transpose(1, 2) @ self.up_v.weight.unflatten(
            0, (heads, head_size)
        ).transpose(1, 2)
        return values.transpose(1, 2).flatten(2)

    @staticmethod
    def _parted(x: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        return x[..., :first], x[..., first:]

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return (StateSpec("latents", (batch, past, latent_size(sizes) + rotated_size(sizes)), grows=1),)

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        latent, rotated, tokens = latent_size(sizes), rotated_size(sizes), past + 1
        hidden, up = cls._matrices(sizes)
        if cls.absorbs:
            macs = hidden + up + 2 * tokens * sizes.heads * (latent + rotated)
        else:
            macs = hidden + tokens * (up + 2 * sizes.inner + sizes.heads * rotated)
        kept = tokens * (latent + rotated)
        return Work(hidden + up + latent, macs, kept, kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        latent, rotated = latent_size(sizes), rotated_size(sizes)
        hidden, up = cls._matrices(sizes)
        macs = tokens * (hidden + up) + tokens**2 * (2 * sizes.inner + sizes.heads * rotated)
        kept = tokens * (latent + rotated)
        return Work(hidden + up + latent, macs, kept, kept)

    @staticmethod
    def _matrices(sizes: MixerSizes) -> tuple[int, int]:
        """Weights from and to the hidden state, and from the latents."""
        latent, rotated = latent_size(sizes), rotated_size(sizes)
        hidden = sizes.width * (2 * sizes.inner + sizes.heads * rotated + latent + rotated)
        return hidden, 2 * latent * sizes.inner

    def roles(self) -> dict[str, Role]:
        return {"q.weight": "reads", "down.weight": "reads", "out.weight": "writes"}

    def projections(self) -> dict[str, torch.Tensor]:
        # Its queries have rotated features of their own, and there are no keys or values of heads to take.
        return {"out": self.out.weight}


def latent_size(sizes: MixerSizes) -> int:
    """Features of the latent of a token: as many as keys and values of ``kv_heads`` heads."""
    return 2 * sizes.kv_inner


def rotated_size(sizes: MixerSizes) -> int:
    """Features of the key that carries the position: half a head, as in DeepSeek-V2."""
    return sizes.head_size // 2


def _check(sizes: MixerSizes) -> None:
    if sizes.kv_heads < 1:
        raise SpaceError("leaves no latent", field="kv_heads", value=sizes.kv_heads, allowed="1 or more")
    if sizes.head_size % 4:
        raise SpaceError(
            "half a head is rotated, in two halves", field="head_size", value=sizes.head_size, allowed="multiples of 4"
        )
