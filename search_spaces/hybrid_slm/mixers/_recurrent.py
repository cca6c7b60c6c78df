"""What mixers of linear time share: short convolutions, chunks of tokens, a matrix carried from chunk to chunk.

Shapes: B sequences, T tokens, H heads, N chunks of S tokens, K features of a key, V of a value.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

EPSILON = 1e-6
LEAST = -80.0
"""Its exponential is nothing beside 1, yet a normal number."""


class ShortConvolution(nn.Module):
    """A causal convolution of each channel by itself, then SiLU.

    Args:
        channels: Number of channels.
        kernel: Tokens that an output sees, the present one included.
        bias: Whether there is one.
    """

    def __init__(self, channels: int, kernel: int = 4, bias: bool = False) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(kernel, channels).uniform_(-(kernel**-0.5), kernel**-0.5))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, T, C)`` to the same, and what :meth:`step` keeps: the last inputs ``(B, kernel - 1, C)``."""
        padded = functional.pad(x, (0, 0, self.kernel - 1, 0))
        # Two-dimensional convolutions run twice as fast as one-dimensional ones on a CPU, forward and backward.
        mixed = functional.conv2d(
            padded.transpose(1, 2).unsqueeze(2), self.weight.t()[:, None, None], self.bias, groups=x.shape[2]
        )
        # Not padded[:, T:], which is a guess of T for the exporter where it is as long as the kernel.
        return functional.silu(mixed.squeeze(2).transpose(1, 2)), padded[:, 1 - self.kernel :]

    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, C)`` to the same, and the state ``(B, kernel - 1, C)`` that follows."""
        window = torch.cat([state, x[:, None]], dim=1)
        mixed = (window * self.weight).sum(dim=1)
        return functional.silu(mixed if self.bias is None else mixed + self.bias), window[:, 1:]


class HeadNorm(nn.Module):
    """RMS norm of every head's output, with one weight for all heads.

    Args:
        size: Features of a head.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., V)`` to the same."""
        return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + EPSILON) * self.weight


class Decay(nn.Module):
    """What a head keeps of its state, after Mamba2 (Dao and Gu, 2405.21060): the longer a token's step, the less.

    Args:
        heads: Number of heads.
    """

    PARAMETERS: ClassVar[int] = 2
    """Of a head."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        steps = torch.empty(heads).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        # The inverse of softplus, so that steps are these where the projection is 0.
        self.step_bias = nn.Parameter(steps + (-(-steps).expm1()).log())
        self.log_rate = nn.Parameter(torch.empty(heads).uniform_(1.0, 16.0).log())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One number a head ``(..., H)`` to the logarithm of what is kept, and the step, likewise."""
        steps = functional.softplus(x + self.step_bias)
        return -self.log_rate.exp() * steps, steps


def unit(x: torch.Tensor) -> torch.Tensor:
    """Vectors of length 1 along the last axis."""
    return x * torch.rsqrt(x.square().sum(dim=-1, keepdim=True) + EPSILON)


def chunk_count(tokens: int, size: int) -> int:
    """Chunks of ``size`` tokens that hold ``tokens``; when exporting, one more.

    The exporter asks whether there is one chunk, to know how tensors lie in memory, and then takes the answer for all
    lengths. With two at least it need not ask.
    """
    return (tokens + size - 1) // size + int(torch.compiler.is_exporting())


def chunked(x: torch.Tensor, size: int) -> torch.Tensor:
    """``(B, T, H, ...)`` to ``(B, H, N, S, ...)``, where zeros fill the last chunk."""
    batch, tokens, *rest = x.shape
    chunks = chunk_count(tokens, size)
    missing = chunks * size - tokens
    if torch.compiler.is_exporting() or missing:  # Padding by nothing copies.
        x = functional.pad(x, [0, 0] * len(rest) + [0, missing])
    return x.reshape(batch, chunks, size, *rest).movedim(3, 1).contiguous()


def unchunked(x: torch.Tensor, tokens: int) -> torch.Tensor:
    """``(B, H, N, S, V)`` to ``(B, T, H, V)``."""
    return x.movedim(1, 3).flatten(1, 2)[:, :tokens]


def decays_between(since: torch.Tensor) -> torch.Tensor:
    """Decay from each token of a chunk (columns) to each (rows) ``(..., S, S)``; 0 from later ones.

    Args:
        since: Sums of logarithms from the beginning of the chunk ``(..., S)``.
    """
    later = torch.ones(since.shape[-1], since.shape[-1], dtype=torch.bool, device=since.device).triu(1)
    # Masked before the exponential, which could overflow there.
    return exponential((since[..., :, None] - since[..., None, :]).masked_fill(later, -torch.inf))


def exponential(x: torch.Tensor) -> torch.Tensor:
    """Of numbers up to 0. Exported, those below :data:`LEAST` are taken for it: far below, runtimes are many times
    slower, and masks are far below."""
    return x.clamp_min(LEAST).exp() if torch.compiler.is_exporting() else x.exp()


def carried(transitions: torch.Tensor, updates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States of ``state = transition @ state + update`` from zero, chunk by chunk.

    Args:
        transitions: ``(B, H, N, K, K)``.
        updates: ``(B, H, N, K, V)``.

    Returns:
        The states before every chunk ``(B, H, N, K, V)``, and the last one ``(B, H, K, V)``.
    """
    if torch.compiler.is_exporting():
        return _carried_by_scan(transitions, updates)
    # A Python loop: eager scans are slower, and this one is of one small product a chunk.
    batch, heads = transitions.shape[:2]
    by_chunk = transitions.transpose(0, 2).flatten(1, 2), updates.transpose(0, 2).flatten(1, 2)
    states = [torch.zeros_like(by_chunk[1][0])]
    for transition, update in zip(by_chunk[0].unbind(), by_chunk[1].unbind(), strict=True):
        states.append(torch.baddbmm(update, transition, states[-1]))
    before = torch.stack(states[:-1]).unflatten(1, (heads, batch)).transpose(0, 2)
    return before, states[-1].unflatten(0, (heads, batch)).transpose(0, 1)


def _carried_by_scan(transitions: torch.Tensor, updates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    def body(state: torch.Tensor, chunk: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        transition, update = chunk
        # What a scan gives out must not be what it was given.
        return transition @ state + update, state.clone()

    # Detached, as the exporter of scans with gradients fails at free numbers of sequences.
    chunks = (transitions.detach().movedim(2, 0), updates.detach().movedim(2, 0))
    last, before = scan(body, torch.zeros_like(chunks[1][0]), chunks)
    return before.movedim(0, 2), last
