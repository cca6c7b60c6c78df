"""Sequences of like length in one batch, so that little is spent on padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...search_spaces.sequence import BEGIN, PAD

if TYPE_CHECKING:
    import torch

POOLED_BATCHES = 32
"""Batches whose examples are drawn together and then sorted by length: enough for little padding, few
enough that the company of an example changes from epoch to epoch."""


@dataclass(frozen=True)
class SequenceBatch:
    """Examples of one step.

    Args:
        source: Ids ``(B, S)``, ended by ``END`` and filled up with ``PAD``.
        target: Ids ``(B, T)``, likewise: what is to be predicted.
    """

    source: torch.Tensor
    target: torch.Tensor

    @property
    def given(self) -> torch.Tensor:
        """What a model is given to predict ``target`` ``(B, T)``: ``BEGIN``, and all tokens but the last."""
        import torch

        return torch.cat([torch.full_like(self.target[:, :1], BEGIN), self.target[:, :-1]], dim=1)

    @property
    def mask(self) -> torch.Tensor:
        """Where ``target`` is no padding ``(B, T)``."""
        return self.target != PAD

    def to(self, device: torch.device) -> SequenceBatch:
        """The batch on a device."""
        return SequenceBatch(self.source.to(device), self.target.to(device))


def padded(sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Ids ``(B, longest)``, filled up with ``PAD``."""
    import torch

    longest = max(len(ids) for ids in sequences)
    return torch.tensor([[*ids, *[PAD] * (longest - len(ids))] for ids in sequences], dtype=torch.int64)


def shuffled_batches(lengths: torch.Tensor, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Numbers of the examples of each batch, all of one size, in random order; a rest is left out.

    Args:
        lengths: Of the examples ``(n,)``; those of like length come together.
        batch_size: Examples a batch, at most ``n``.
        generator: Of all that is random.
    """
    import torch

    batches = len(lengths) // batch_size
    order = torch.randperm(len(lengths), generator=generator)[: batches * batch_size]
    pools = [pool[lengths[pool].argsort(stable=True)] for pool in order.split(POOLED_BATCHES * batch_size)]
    parts = [part for pool in pools for part in pool.split(batch_size)]
    for index in torch.randperm(batches, generator=generator).tolist():
        yield parts[index]
