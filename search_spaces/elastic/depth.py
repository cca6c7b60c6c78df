"""Elastic depth: the first blocks of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import nn

from .sizes import Extractable, checked_size


class ElasticDepth(nn.ModuleList):
    """A sequence of blocks of which the first ones run, each on the result of the one before it.

    Blocks are elastic modules: each has ``extract``.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__(blocks)
        self.depth = len(self)

    @property
    def active(self) -> Sequence[nn.Module]:
        """The blocks that run."""
        return list(self)[: self.depth]

    def resize(self, depth: int) -> None:
        """Sets the number of blocks that run.

        Raises:
            SpaceError: If there are not so many.
        """
        self.depth = checked_size("depth", depth, len(self))

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Runs the active blocks; each also gets ``args`` and ``kwargs``."""
        for block in self.active:
            x = block(x, *args, **kwargs)
        return x

    def extract(self) -> nn.Sequential:
        """A plain sequence of the blocks that run, with copied weights."""
        return nn.Sequential(*(cast(Extractable, block).extract() for block in self.active))
