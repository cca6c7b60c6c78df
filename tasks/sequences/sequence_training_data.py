"""Pairs of sequences as steps of training.

Shapes: B pairs in a batch, S source tokens, T target tokens, V target vocabulary, N target tokens of a batch
without padding.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from ...errors import TaskError
from ..torch_state import derived_seed
from ..training_data import TrainingData
from ..training_settings import TrainingSettings
from .batching import SequenceBatch, padded, shuffled_batches
from .prepared import PreparedPairs
from .scoring import LIKELIHOOD, score_sequences


class SequenceTrainingData(TrainingData):
    """The train split in batches of as many pairs, of like length; what is left over of an epoch is left out.

    Args:
        data: Only its train split is learned from, only what is asked for is scored.
        settings: Batch size and label smoothing.
        metric: Name of the figure that is the quality.
        decoded: So many validation pairs are decoded, see :func:`score_sequences`.
        beam, length_penalty: Of decoding.
    """

    def __init__(
        self,
        data: PreparedPairs,
        settings: TrainingSettings,
        *,
        metric: str,
        decoded: int | None,
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> None:
        self.data, self.settings, self.metric = data, settings, metric
        self.decoded, self.beam, self.length_penalty = decoded, beam, length_penalty
        self._sources, self._targets = data.sources("train"), data.targets("train")
        pairs = zip(self._sources, self._targets, strict=True)
        self._lengths = torch.tensor([len(source) + len(target) for source, target in pairs])
        self._batch_size = min(settings.batch_size, len(self._sources))

    @property
    def batches_per_epoch(self) -> int:
        return len(self._sources) // self._batch_size

    def batches(self, seed: int, epoch: int) -> Iterator[SequenceBatch]:
        generator = torch.Generator().manual_seed(derived_seed(seed, epoch, 0))
        for numbers in shuffled_batches(self._lengths, self._batch_size, generator):
            chosen = numbers.tolist()
            yield SequenceBatch(padded([self._sources[i] for i in chosen]), padded([self._targets[i] for i in chosen]))

    def part(self, batch: SequenceBatch, index: int, count: int) -> SequenceBatch:
        return SequenceBatch(batch.source[index::count], batch.target[index::count])

    def logits(self, model: nn.Module, batch: SequenceBatch) -> torch.Tensor:
        """Logits ``(N, V)``, sentence by sentence."""
        device, vocabulary = next(model.parameters()).device, self.data.tokenizers.target.size
        batch = batch.to(device)
        try:
            outputs: torch.Tensor = model(batch.source, batch.given)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TaskError(f"the model cannot run on sources {tuple(batch.source.shape)}: {line}") from error
        expected = (*batch.target.shape, vocabulary)
        if tuple(outputs.shape) != expected:
            raise TaskError(
                "the model does not give one logit per token of the vocabulary",
                field="output shape",
                value=tuple(outputs.shape),
                allowed=f"{expected} for this batch",
            )
        return outputs[batch.mask]

    def loss(self, logits: torch.Tensor, batch: SequenceBatch) -> torch.Tensor:
        labels = batch.target[batch.mask].to(logits.device)
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)

    def score(self, model: nn.Module, split: str = "validation") -> dict[str, float]:
        return score_sequences(
            model,
            self.data,
            split,
            decoded=decoded_pairs(split, self.metric, self.decoded),
            beam=self.beam,
            length_penalty=self.length_penalty,
        )


def decoded_pairs(split: str, metric: str, decoded: int | None) -> int | None:
    """How many pairs of a split are decoded: all of ``test``; of others none where the metric needs none."""
    if split == "test":
        return None
    return 0 if metric == LIKELIHOOD else decoded
