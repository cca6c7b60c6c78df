"""Gated linear attention: every feature of a key decays by itself, depending on the token.

Yang et al. (2312.06635): keys of half a head's features, decays from a product of low rank, a norm of each head's
output, gated. No short convolution, as in the paper.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional

from ....errors import SpaceError
from ..sizes import MixerSizes, Work
from ._attending import linear
from ._recurrent import HeadNorm, chunked, decays_between, unchunked
from .base import Mixer, Role, State, StateSpec

RANK = 16
"""Of the product that gives the decays."""
TEMPERATURE = 16.0
"""Decays are sigmoids to the power of one over this."""
CHUNK = 64
PART = 8
"""Tokens of a part of a chunk, whose scores are summed feature by feature."""


class GatedLinearAttention(Mixer):
    """Keys of ``head_size / 2`` features, values of ``head_size``; heads share nothing."""

    kind: ClassVar[str] = "gla"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        if sizes.head_size % 2:
            raise SpaceError("is odd: keys have half of it", field="head_size", value=sizes.head_size)
        key_inner = sizes.inner // 2
        self.inputs = linear(sizes.width, 2 * key_inner + 2 * sizes.inner + RANK)
        self.decay = nn.Linear(RANK, key_inner)
        self.norm = HeadNorm(sizes.head_size)
        self.out = linear(sizes.inner, sizes.width)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        queries, keys, values, log_decay, gates = self._projected(x)
        outputs, matrix = gated_attention(queries, keys, values, log_decay)
        return self._written(outputs, gates), (matrix,)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        query, key, value, log_decay, gates = self._projected(x)
        matrix = state[0] * log_decay.exp()[..., None] + key[..., None] * value[:, :, None]
        output = (query[:, :, None] @ matrix)[:, :, 0]
        return self._written(output, gates), (matrix,)

    def _projected(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Queries, keys ``(..., H, K)``, values ``(..., H, V)``, log decays like keys, gates ``(..., H V)``."""
        heads, inner = self.sizes.heads, self.sizes.inner
        queries, keys, values, gates, low = self.inputs(x).split([inner // 2, inner // 2, inner, inner, RANK], dim=-1)
        log_decay = functional.logsigmoid(self.decay(low)) / TEMPERATURE
        by_head = (part.unflatten(-1, (heads, -1)) for part in (queries, keys, values, log_decay))
        return (*by_head, gates)

    def _written(self, outputs: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """``(..., H, V)`` and gates ``(..., H V)`` to ``(..., C)``."""
        written: torch.Tensor = self.out(self.norm(outputs).flatten(-2) * functional.silu(gates))
        return written

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return (StateSpec("matrix", (batch, sizes.heads, sizes.head_size // 2, sizes.head_size)),)

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters, kept = cls._weights(sizes), sizes.inner * sizes.head_size // 2
        return Work(parameters, parameters + 3 * kept, kept, 2 * kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters, kept = cls._weights(sizes), sizes.inner * sizes.head_size // 2
        # Scores of a part feature by feature, their use, what a part writes and reads, states of parts from each other.
        a_token = sizes.inner * 2 * PART + 2 * kept + kept * (CHUNK // PART) // PART
        return Work(parameters, tokens * (parameters + a_token), kept, kept)

    @classmethod
    def _weights(cls, sizes: MixerSizes) -> int:
        key_inner = sizes.inner // 2
        inputs = sizes.width * (2 * key_inner + 2 * sizes.inner + RANK)
        return inputs + (RANK + 1) * key_inner + sizes.head_size + sizes.width * sizes.inner

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}


def gated_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, log_decay: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """``state = decay[:, None] * state + k v'``, output ``q' state``, in chunks of parts.

    Decays only ever enter as exponentials of sums from an earlier token to a later one, never of their inverses
    (the paper's equation 4 divides by them): nothing overflows, however strong they are.

    Args:
        queries, keys: ``(B, T, H, K)``.
        values: ``(B, T, H, V)``.
        log_decay: Logarithm of what is kept of the state before a token: ``(B, T, H, K)``.

    Returns:
        Outputs ``(B, T, H, V)``, and the state after the last token ``(B, H, K, V)``.
    """
    tokens = queries.shape[1]
    queries, keys, values, log_decay = (
        chunked(x, CHUNK).unflatten(3, (-1, PART)) for x in (queries, keys, values, log_decay)
    )  # (B, H, N, G, S, ...): G parts of S tokens
    since = log_decay.cumsum(dim=-2)
    between = decays_between(since.transpose(-1, -2))  # (B, H, N, G, K, S, S)
    scores = (queries.transpose(-1, -2)[..., :, None] * between * keys.transpose(-1, -2)[..., None, :]).sum(dim=-3)
    kept = keys.transpose(-1, -2) * between[..., -1, :]
    of_part = since[..., -1, :]
    within = _states(of_part, kept @ values)
    outer = _states(of_part.sum(dim=-2), within[..., -1, :, :])
    earlier = (of_part.cumsum(dim=-2) - of_part).exp()[..., None] * outer[:, :, :-1, None]
    outputs = scores @ values + (queries * since.exp()) @ (within[..., :-1, :, :] + earlier)
    return unchunked(outputs.flatten(3, 4), tokens), outer[:, :, -1]


def _states(log_decay: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    """States before each of M updates, and after the last ``(..., M + 1, K, V)``.

    Args:
        log_decay: ``(..., M, K)``.
        updates: ``(..., M, K, V)``.
    """
    since = functional.pad(log_decay.cumsum(dim=-2).transpose(-1, -2), (1, 0))
    return (decays_between(since)[..., 1:] @ updates.transpose(-2, -3)).transpose(-2, -3)
