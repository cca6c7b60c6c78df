"""Mamba2: linear attention with a decay of each head that depends on the token.

Dao and Gu (2405.21060): twice the width inside, one key and one query for all heads, a state of as many features as
two heads, a short convolution with bias, a norm of gated outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ..sizes import MixerSizes, Work
from ._attending import linear
from ._recurrent import EPSILON, Decay, ShortConvolution, chunk_count, decays_between
from .base import Mixer, Role, State, StateSpec

KERNEL = 4
EXPANSION = 2
CHUNK = 64
"""Tokens of a chunk."""


@dataclass(frozen=True)
class _Sizes:
    """Sizes inside: of all heads together, number of heads, features of a key."""

    inner: int
    heads: int
    key: int

    @classmethod
    def of(cls, sizes: MixerSizes) -> _Sizes:
        return cls(EXPANSION * sizes.inner, EXPANSION * sizes.heads, 2 * sizes.head_size)

    @property
    def convolved(self) -> int:
        return self.inner + 2 * self.key


class Mamba2(Mixer):
    """Has ``2 heads`` heads of ``head_size`` features, and keys of ``2 head_size``."""

    kind: ClassVar[str] = "mamba2"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        own = _Sizes.of(sizes)
        self.inputs = linear(sizes.width, own.convolved + own.inner + own.heads)
        self.convolution = ShortConvolution(own.convolved, KERNEL, bias=True)
        self.decay = Decay(own.heads)
        self.direct = nn.Parameter(torch.ones(own.heads))
        self.norm = nn.RMSNorm(own.inner, eps=EPSILON)
        self.out = linear(own.inner, sizes.width)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        projected, gates, steps = self._projected(x)
        mixed, recent = self.convolution(projected)
        values, keys, queries = self._parts(mixed)
        log_decay, scale = self.decay(steps)
        outputs, matrix = decayed_attention(queries, keys, values * scale[..., None], log_decay)
        return self._written(outputs, values, gates), (recent, matrix)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        projected, gates, steps = self._projected(x)
        mixed, recent = self.convolution.step(projected, state[0])
        value, key, query = self._parts(mixed)
        log_decay, scale = self.decay(steps)
        learnt = key[:, :, None, None] * (value * scale[..., None])[:, None]
        matrix = state[1] * log_decay.exp()[:, None, :, None] + learnt
        output = (query[:, None] @ matrix.flatten(2))[:, 0].view_as(value)
        return self._written(output, value, gates), (recent, matrix)

    def _projected(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is convolved, gates, and one number a head."""
        own = _Sizes.of(self.sizes)
        convolved, gates, steps = self.inputs(x).split([own.convolved, own.inner, own.heads], dim=-1)
        return convolved, gates, steps

    def _parts(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Values ``(..., H, D)``, keys and queries ``(..., K)``."""
        own = _Sizes.of(self.sizes)
        values, keys, queries = mixed.split([own.inner, own.key, own.key], dim=-1)
        return values.unflatten(-1, (own.heads, self.sizes.head_size)), keys, queries

    def _written(self, outputs: torch.Tensor, values: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``(..., H, D)`` twice and gates ``(..., H D)`` to ``(..., C)``."""
        direct = outputs + self.direct[:, None] * values
        written: torch.Tensor = self.out(self.norm(direct.flatten(-2) * functional.silu(gates)))
        return written

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        own = _Sizes.of(sizes)
        return (
            StateSpec("recent", (batch, KERNEL - 1, own.convolved)),
            StateSpec("matrix", (batch, own.key, own.heads, sizes.head_size)),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        own, parameters, kept = _Sizes.of(sizes), cls._weights(sizes), cls._kept(sizes)
        return Work(parameters, parameters + 3 * own.inner * own.key, kept, 2 * kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        own, parameters, kept = _Sizes.of(sizes), cls._weights(sizes), cls._kept(sizes)
        a_token = CHUNK * (own.key + own.heads + own.inner) + 2 * own.inner * own.key
        return Work(parameters, tokens * (parameters + a_token), kept, kept)

    @classmethod
    def _weights(cls, sizes: MixerSizes) -> int:
        own = _Sizes.of(sizes)
        matrices = sizes.width * (own.convolved + 2 * own.inner + own.heads)
        return matrices + (KERNEL + 1) * own.convolved + own.heads * (Decay.PARAMETERS + 1) + own.inner

    @classmethod
    def _kept(cls, sizes: MixerSizes) -> int:
        own = _Sizes.of(sizes)
        return (KERNEL - 1) * own.convolved + own.key * own.inner

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}


def decayed_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, log_decay: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``state = decay state + k v'``, output ``q' state``, in chunks; heads share keys and queries.

    Args:
        queries, keys: ``(B, T, K)``.
        values: ``(B, T, H, V)``.
        log_decay: Logarithm of what is kept of the state before a token: ``(B, T, H)``.

    Returns:
        Outputs ``(B, T, H, V)``, and the state after the last token ``(B, K, H, V)``.
    """
    tokens, heads, size = values.shape[1:]
    chunks = chunk_count(tokens, CHUNK)
    queries, keys, values, log_decay = (_in_chunks(x, chunks) for x in (queries, keys, values.flatten(2), log_decay))
    # Contiguous, or what is as large as scores would lie in memory as its products do not want it.
    since = log_decay.transpose(2, 3).contiguous().cumsum(dim=-1)  # (B, N, H, S)
    between = decays_between(since)
    by_head = values.unflatten(-1, (heads, size)).transpose(2, 3)  # (B, N, H, S, V)
    inside = ((queries @ keys.transpose(-1, -2))[:, :, None] * between) @ by_head
    left = (by_head * between[..., -1, :, None]).transpose(2, 3).flatten(3)  # (B, N, S, H V)
    before, last = _carried(since[..., -1], keys.transpose(-1, -2) @ left, size)
    outputs = (
        inside.transpose(2, 3)
        + (queries @ before).unflatten(-1, (heads, size)) * since.exp().transpose(2, 3)[..., None]
    )
    return outputs.flatten(1, 2)[:, :tokens], last


def _in_chunks(x: torch.Tensor, chunks: int) -> torch.Tensor:
    missing = chunks * CHUNK - x.shape[1]
    if torch.compiler.is_exporting() or missing:  # Padding by nothing copies.
        x = functional.pad(x, (0, 0, 0, missing))
    return x.reshape(x.shape[0], chunks, CHUNK, x.shape[2])


def _carried(log_decay: torch.Tensor, updates: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States before every chunk ``(B, N, K, H V)`` and the last one ``(B, K, H, V)``.

    A product over chunks: decays are numbers, so that no loop is needed.

    Args:
        log_decay: Of every chunk ``(B, N, H)``.
        updates: ``(B, N, K, H V)``.
        size: V.
    """
    heads = log_decay.shape[-1]
    since = functional.pad(log_decay.cumsum(dim=1).transpose(1, 2), (1, 0))  # (B, H, N + 1)
    by_head = updates.unflatten(-1, (heads, size)).permute(0, 3, 1, 2, 4)  # (B, H, N, K, V)
    states = decays_between(since)[..., 1:] @ by_head.flatten(3)  # (B, H, N + 1, K V)
    states = states.unflatten(-1, (-1, size)).permute(0, 2, 3, 1, 4)  # (B, N + 1, K, H, V)
    return states[:, :-1].flatten(3), states[:, -1]
