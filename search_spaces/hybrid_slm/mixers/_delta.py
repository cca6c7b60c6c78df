"""The delta rule: a matrix that learns values of keys by gradient steps, token by token or in chunks.

``state = decay (I - beta k k') state + beta k v'``, output ``q' state``. In chunks after Yang et al. (2406.06484,
section 3), decay after Yang et al. (2412.06464, section 3.3).

Shapes: B sequences, T tokens, H heads, N chunks of S tokens, K features of a key, V of a value.
"""

from __future__ import annotations

from typing import Any

import torch

from ._recurrent import carried, chunked, decays_between, unchunked

CHUNK = 32
"""Tokens of a chunk: a power of two."""


def delta_rule(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    beta: torch.Tensor,
    log_decay: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """All tokens at once.

    Args:
        queries, keys: ``(B, T, H, K)``, keys of length 1.
        values: ``(B, T, H, V)``.
        beta: How much of a value is learnt, 0 to 1: ``(B, T, H)``.
        log_decay: Logarithm of what is kept of the state before a token: ``(B, T, H)``; None for all of it.

    Returns:
        Outputs ``(B, T, H, V)`` and the state after the last token ``(B, H, K, V)``.
    """
    tokens = queries.shape[1]
    queries, keys, values = (chunked(x, CHUNK) for x in (queries, keys, values))
    rate = chunked(beta, CHUNK)
    learning, seen = rate[..., None] * (keys @ keys.transpose(-1, -2)), queries @ keys.transpose(-1, -2)
    read_keys, kept_keys, kept = keys, keys, torch.eye(keys.shape[-1], device=keys.device)
    if log_decay is not None:
        since = chunked(log_decay, CHUNK).cumsum(dim=-1)
        between, grown = decays_between(since), since.exp()[..., None]
        learning, seen = learning * between, seen * between
        queries, read_keys = queries * grown, keys * grown
        kept_keys, kept = keys * between[..., -1, :, None], kept * grown[..., -1:, :]
    solved = unit_lower_inverse(learning.tril(-1)) * rate[..., None, :]
    written, read, across = solved @ values, solved @ read_keys, kept_keys.transpose(-1, -2)
    before, last = carried(kept - across @ read, across @ written)
    outputs = queries @ before + seen.tril() @ (written - read @ before)
    return unchunked(outputs, tokens), last


def delta_step(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    beta: torch.Tensor,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One token. Decay of the state is the caller's.

    Args:
        query, key: ``(B, H, K)``.
        value: ``(B, H, V)``.
        beta: ``(B, H)``.
        state: ``(B, H, K, V)``.

    Returns:
        Output ``(B, H, V)`` and the state that follows.
    """
    error = value[:, :, None] - key[:, :, None] @ state
    following = state + key[..., None] * (beta[..., None, None] * error)
    return (query[:, :, None] @ following)[:, :, 0], following


def unit_lower_inverse(strict: torch.Tensor) -> torch.Tensor:
    """``(I + A)^-1`` of strictly lower triangular matrices ``(..., S, S)``, S a power of two.

    Stable for correlated keys, where the power series of A is not.
    """
    if torch.compiler.is_exporting():
        return _inverse_by_halves(strict)
    inverse: torch.Tensor = _UnitLowerInverse.apply(strict)  # type: ignore[no-untyped-call]
    return inverse


def _inverse_by_halves(strict: torch.Tensor) -> torch.Tensor:
    size = strict.shape[-1]
    if size <= 4:
        # I - A + A^2 - A^3, exact as A^4 = 0, and short enough that nothing cancels.
        square = strict @ strict
        return torch.eye(size, device=strict.device) - strict + square - strict @ square
    half = size // 2
    blocks = torch.stack([strict[..., :half, :half], strict[..., half:, half:]])
    first, second = _inverse_by_halves(blocks).unbind()
    corner = -(second @ strict[..., half:, :half] @ first)
    upper = torch.cat([first, torch.zeros_like(first)], dim=-1)
    return torch.cat([upper, torch.cat([corner, second], dim=-1)], dim=-2)


class _UnitLowerInverse(torch.autograd.Function):
    """By forward substitution, which does not export; its gradient is two products."""

    @staticmethod
    def forward(ctx: Any, strict: torch.Tensor) -> torch.Tensor:
        identity = torch.eye(strict.shape[-1], device=strict.device).expand_as(strict)
        inverse: torch.Tensor = torch.linalg.solve_triangular(strict, identity, upper=False, unitriangular=True)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (inverse,) = ctx.saved_tensors
        transposed = inverse.transpose(-1, -2)
        gradient: torch.Tensor = -(transposed @ gradients[0] @ transposed).tril(-1)
        return gradient
