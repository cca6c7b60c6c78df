"""Local and global in one mixer: a window, summaries of all blocks, and the blocks that these point to, gated.

Native sparse attention (Yuan et al., 2502.11089). Local and global in turn (2511.00819) is this one's two halves as
layers of their own: :mod:`.sliding_window` and :mod:`.block_sparse`, ratio 1:1.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ..sizes import MixerSizes
from ._attending import MASKED, attend, causal_bias
from ._bands import attend_in_bands
from .block_sparse import BlockSparse


class LocalGlobal(BlockSparse):
    """:class:`BlockSparse` with a third branch, attention over ``sizes.window`` tokens, from the same cache."""

    kind: ClassVar[str] = "local_global"
    branches: ClassVar[int] = 3

    def _more_in_sequence(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, fused: bool
    ) -> list[torch.Tensor]:
        if fused and not torch.compiler.is_exporting():
            return [attend_in_bands(queries, keys, values, self.sizes.window)]
        positions = torch.arange(queries.shape[2], device=queries.device)
        return [attend(queries, keys, values, causal_bias(positions, self.sizes.window))]

    def _more_in_step(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, position: torch.Tensor
    ) -> list[torch.Tensor]:
        # Always as many rows as the window, some hidden: a slice from the end has a length that a graph may not keep.
        rows = position - torch.arange(self.sizes.window, device=position.device)
        bias = torch.where(rows < 0, MASKED, 0.0)
        rows = rows.clamp(min=0)
        return [attend(queries, keys.index_select(2, rows), values.index_select(2, rows), bias)]

    @classmethod
    def _more_tokens(cls, sizes: MixerSizes) -> int:
        return sizes.window
