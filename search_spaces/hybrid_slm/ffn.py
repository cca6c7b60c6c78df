"""The feed-forward of language models: SwiGLU (Shazeer, 2002.05202)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from .mixers._attending import linear
from .mixers.base import Role
from .sizes import Work
from .sparse import ConstantFanInLinear


class SwiGLU(nn.Module):
    """``out(silu(gate(x)) * up(x))`` without biases.

    Args:
        width: Of input and output.
        ffn_width: In between.
        fan_in: Inputs of each output of the three layers; None for all.
    """

    def __init__(self, width: int, ffn_width: int, fan_in: int | None = None) -> None:
        super().__init__()
        self.fan_in = fan_in
        self.gate, self.up = _projection(width, ffn_width, fan_in), _projection(width, ffn_width, fan_in)
        self.out = _projection(ffn_width, width, fan_in)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(..., C)`` to the same."""
        mixed: torch.Tensor = self.out(functional.silu(self.gate(x)) * self.up(x))
        return mixed

    @staticmethod
    def work(width: int, ffn_width: int, tokens: int = 1, fan_in: int | None = None) -> Work:
        """Cost of ``tokens`` tokens. Of sparse layers what they keep, not which inputs it is of."""
        parameters = 3 * width * ffn_width if fan_in is None else (2 * ffn_width + width) * fan_in
        return Work(parameters, tokens * parameters, 0, 0)

    def roles(self) -> dict[str, Role]:
        """See :meth:`Mixer.roles`. Condensed weights have no columns, and are left out."""
        if self.fan_in is not None:
            return {}
        return {"gate.weight": "reads", "up.weight": "reads", "out.weight": "writes"}


def _projection(inputs: int, outputs: int, fan_in: int | None) -> nn.Module:
    return linear(inputs, outputs) if fan_in is None else ConstantFanInLinear(inputs, outputs, fan_in)
