"""Local linear attention: for every query a linear fit of values over keys, weighted by nearness to the query.

Zuo et al. (LLA, 2510.01450): softmax attention is the local *constant* fit, and linear attention the global linear one;
the ridge moves between the two. An operator for quality: it costs several times what attention does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import nn

from ..sizes import MixerSizes, Work
from ._attending import Rotary, causal_bias, check_heads, linear, split_heads
from ._recurrent import unit
from .base import Mixer, Role, State, StateSpec

ITERATIONS = 8
"""Of conjugate gradients, for every query."""
RIDGE = 0.1
"""At the beginning; keys have length 1."""
_TINY = 1e-12


class LocalLinear(Mixer):
    """Queries and keys of length 1, with rotary positions; heads may share keys; a bandwidth and a ridge a head."""

    kind: ClassVar[str] = "local_linear"

    def __init__(self, sizes: MixerSizes) -> None:
        super().__init__(sizes)
        check_heads(sizes)
        self.inputs = linear(sizes.width, sizes.inner + 2 * sizes.kv_inner)
        self.log_sharpness = nn.Parameter(torch.full((sizes.heads,), sizes.head_size**0.5).log())
        self.log_ridge = nn.Parameter(torch.full((sizes.heads,), RIDGE).log())
        self.out = linear(sizes.inner, sizes.width)
        self.rotary = Rotary(sizes.head_size, sizes.max_length)

    def prefill(self, x: torch.Tensor) -> tuple[torch.Tensor, State]:
        positions = torch.arange(x.shape[1], device=x.device)
        queries, keys, values = self._projected(x, positions)
        return self._attended(queries, keys, values, causal_bias(positions)), (keys, values)

    def step(self, x: torch.Tensor, position: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        queries, key, value = self._projected(x[:, None], position)
        keys, values = torch.cat([state[0], key], dim=2), torch.cat([state[1], value], dim=2)
        return self._attended(queries, keys, values, None)[:, 0], (keys, values)

    def _projected(self, x: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries ``(B, H, T, D)``, keys and values ``(B, K, T, D)``."""
        heads, kv_heads = self.sizes.heads, self.sizes.kv_heads
        parts = split_heads(self.inputs(x), heads + 2 * kv_heads)
        queries, keys, values = parts.split([heads, kv_heads, kv_heads], dim=1)
        return self.rotary(unit(queries), positions), self.rotary(unit(keys), positions), values

    def _attended(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """``(B, T, C)``."""
        shape = (self.sizes.kv_heads, -1, 1, 1)
        sharpness, ridge = self.log_sharpness.exp().reshape(shape), self.log_ridge.exp().reshape(shape)
        grouped, keys, values = queries.unflatten(1, (keys.shape[1], -1)), keys[:, :, None], values[:, :, None]
        scores = grouped @ keys.transpose(-1, -2) * sharpness
        weights = torch.softmax(scores if bias is None else scores + bias, dim=-1)
        fitted = local_linear_fit(grouped, keys, values, weights, ridge)
        mixed: torch.Tensor = self.out(fitted.flatten(1, 2).transpose(1, 2).flatten(2))
        return mixed

    @classmethod
    def state_specs(cls, sizes: MixerSizes, batch: int, past: int) -> tuple[StateSpec, ...]:
        shape = (batch, sizes.kv_heads, past, sizes.head_size)
        return (StateSpec("keys", shape, grows=2), StateSpec("values", shape, grows=2))

    @classmethod
    def step_work(cls, sizes: MixerSizes, past: int) -> Work:
        return cls._work(sizes, past + 1, past + 1, 1)

    @classmethod
    def prefill_work(cls, sizes: MixerSizes, tokens: int) -> Work:
        return cls._work(sizes, tokens, tokens**2, tokens)

    @classmethod
    def _work(cls, sizes: MixerSizes, kept: int, pairs: int, tokens: int) -> Work:
        matrices = 2 * sizes.width * (sizes.inner + sizes.kv_inner)
        # Scores, mean of keys, two products an iteration, slopes along keys, values.
        products = pairs * sizes.inner * (4 + 2 * ITERATIONS)
        state = 2 * kept * sizes.kv_inner
        return Work(matrices + 2 * sizes.heads, tokens * matrices + products, state, state)

    def roles(self) -> dict[str, Role]:
        return {"inputs.weight": "reads", "out.weight": "writes"}


def local_linear_fit(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, weights: torch.Tensor, ridge: torch.Tensor
) -> torch.Tensor:
    """Value at each query of the ``b + W k`` that minimises ``sum_j weights_j |v_j - b - W k_j|^2 + ridge |W|^2``.

    That is ``v + Cov(v, k) (Cov(k, k) + ridge)^-1 (q - k)``, with weighted means and covariances. The covariance is
    never formed: conjugate gradients need its products only, which are of the size of attention.

    Args:
        queries: ``(..., T, D)``.
        keys: ``(..., M, D)``.
        values: ``(..., M, V)``.
        weights: ``(..., T, M)``, of sum 1 along M.
        ridge: Broadcasts to ``(..., T, 1)``.

    Returns:
        ``(..., T, V)``.
    """
    mean = weights @ keys

    def slopes(direction: torch.Tensor) -> torch.Tensor:
        """Weighted distance of each key from the mean, along a direction a query ``(..., T, M)``."""
        along = direction @ keys.transpose(-1, -2) - (mean * direction).sum(dim=-1, keepdim=True)
        return weights * along

    solution = _conjugate_gradients(lambda x: slopes(x) @ keys + ridge * x, queries - mean)
    return (weights + slopes(solution)) @ values


def _conjugate_gradients(product: Callable[[torch.Tensor], torch.Tensor], target: torch.Tensor) -> torch.Tensor:
    """Solution of positive definite systems along the last axis, in :data:`ITERATIONS` steps from zero."""
    solution, residual, direction = torch.zeros_like(target), target, target
    size = _squared(residual)
    for _ in range(ITERATIONS):
        image = product(direction)
        # What is solved already has a residual of 0, and stays. Clamped: exporters drop the addition of a tiny number.
        length = size / (direction * image).sum(dim=-1, keepdim=True).clamp_min(_TINY)
        solution, residual = solution + length * direction, residual - length * image
        following = _squared(residual)
        direction = residual + following / size.clamp_min(_TINY) * direction
        size = following
    return solution


def _squared(x: torch.Tensor) -> torch.Tensor:
    return x.square().sum(dim=-1, keepdim=True)
