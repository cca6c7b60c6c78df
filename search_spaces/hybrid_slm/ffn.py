"""The feed-forward of language models: SwiGLU (Shazeer, 2002.05202)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .mixers._attending import linear
from .mixers.base import Role
from .sizes import Work


class SwiGLU(nn.Module):
    """``out(silu(gate(x)) * up(x))`` without biases.

    Args:
        width: Of input and output.
        ffn_width: In between.
    """

    def __init__(self, width: int, ffn_width: int) -> None:
        super().__init__()
        self.gate, self.up = linear(width, ffn_width), linear(width, ffn_width)
        self.out = linear(ffn_width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., C)`` to the same."""
        mixed: torch.Tensor = self.out(functional.silu(self.gate(x)) * self.up(x))
        return mixed

    @staticmethod
    def work(width: int, ffn_width: int, tokens: int = 1) -> Work:
        """Cost of ``tokens`` tokens."""
        parameters = 3 * width * ffn_width
        return Work(parameters, tokens * parameters, 0, 0)

    def roles(self) -> dict[str, Role]:
        """See :meth:`Mixer.roles`."""
        return {"gate.weight": "reads", "up.weight": "reads", "out.weight": "writes"}
