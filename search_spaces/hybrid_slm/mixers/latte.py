"""Latent linear attention: tokens attend to a few latents, which attend to all tokens before.

Dolga et al. (Latte, 2402.17512), causal: output ``sum_l softmax(q)_l sum_s exp(k_sl) v_s / sum_s exp(k_sl)``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch.nn import functional

from ..sizes import MixerSizes, Work
from ._attending import MASKED, linear
from ._recurrent import chunked, exponential, unchunked
from .base import Mixer, Role, State, StateSpec
from .gla import CHUNK, PART, gated_attention


class Latte(Mixer):
    """As many latents a head as features: ``head_size``; heads share nothing.

    Its state holds each latent's mean of values so far, and the logarithm of the weights it is a mean of.
    """

    kind: ClassVar[str] = "latte"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        self.inputs = linear(sizes.width, 3 * sizes.inner)
        self.out = linear(sizes.inner, sizes.width)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        queries, keys, values = self._projected(x)
        totals = log_sums(keys)
        before = torch.cat([totals[:, :1], totals[:, :-1]], dim=1)
        # A mean takes in a value as a gated state does: kept is what the weights before are of those now. What is kept
        # by the first token does not matter.
        outputs, means = gated_attention(queries, (keys - totals).exp(), values, before - totals)
        return self.out(outputs.flatten(2)), (totals[:, -1], means)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        query, key, value = self._projected(x)
        total = torch.maximum(state[0], key) + functional.softplus(-(state[0] - key).abs())
        learnt = (key - total).exp()[..., None] * value[:, :, None]
        means = (state[0] - total).exp()[..., None] * state[1] + learnt
        output = (query[:, :, None] @ means)[:, :, 0]
        return self.out(output.flatten(1)), (total, means)

    def init_state(self, batch: int) -> State:
        totals, means = super().init_state(batch)
        return totals + MASKED, means

    def _projected(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Weights of latents, their scores of a token, values: each ``(..., H, D)``."""
        parts = self.inputs(x).unflatten(-1, (3 * self.sizes.heads, self.sizes.head_size))
        queries, keys, values = parts.chunk(3, dim=-2)
        return torch.softmax(queries, dim=-1), keys, values

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        return (
            StateSpec("totals", (batch, sizes.heads, sizes.head_size)),
            StateSpec("means", (batch, sizes.heads, sizes.head_size, sizes.head_size)),
        )

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        parameters, kept = 4 * sizes.width * sizes.inner, sizes.inner * (1 + sizes.head_size)
        return Work(parameters, parameters + 3 * sizes.inner * sizes.head_size, kept, 2 * kept)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        parameters, kept = 4 * sizes.width * sizes.inner, sizes.inner * (1 + sizes.head_size)
        matrix = sizes.inner * sizes.head_size
        a_token = sizes.inner * 4 * PART + 2 * matrix + matrix * (CHUNK // PART) // PART
        return Work(parameters, tokens * (parameters + a_token), kept, kept)

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}


def log_sums(x: torch.Tensor) -> torch.Tensor:
    """Logarithms of the sums of exponentials of all tokens up to each: ``(B, T, H, L)`` to the same."""
    return _log_sums_in_chunks(x) if torch.compiler.is_exporting() else torch.logcumsumexp(x, dim=1)


def _log_sums_in_chunks(x: torch.Tensor) -> torch.Tensor:
    """What exports: within parts, between parts of a chunk, between chunks."""
    parts = chunked(x, CHUNK).unflatten(3, (-1, PART)).transpose(-1, -2)  # (B, H, N, G, L, S)
    within = _pairwise_log_sums(parts)
    of_parts = _pairwise_log_sums(within[..., -1].transpose(-1, -2))  # (B, H, N, L, G)
    of_chunks = _pairwise_log_sums(of_parts[..., -1].transpose(-1, -2))  # (B, H, L, N)
    earlier = torch.logaddexp(_shifted(of_parts), _shifted(of_chunks).transpose(-1, -2)[..., None])
    sums = torch.logaddexp(within, earlier.transpose(-1, -2)[..., None])
    return unchunked(sums.transpose(-1, -2).flatten(3, 4), x.shape[1])


def _pairwise_log_sums(x: torch.Tensor) -> torch.Tensor:
    """Along the last axis."""
    later = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool, device=x.device).triu(1)
    seen = x[..., None, :].masked_fill(later, MASKED)
    # By hand: runtimes are slow at a log-sum-exp of masked numbers.
    most = seen.amax(dim=-1, keepdim=True)
    return exponential(seen - most).sum(dim=-1).log() + most[..., 0]


def _shifted(x: torch.Tensor) -> torch.Tensor:
    """By one along the last axis; nothing comes before the first."""
    return functional.pad(x, (1, 0), value=MASKED)[..., :-1]
