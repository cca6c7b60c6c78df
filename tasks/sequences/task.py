"""Translation, pronunciation, and whatever else writes one sequence for another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, TaskError
from ...records import Evaluation
from ..base import Progress, Task
from ..cost_hint import training_hint_s
from ..splits import check_fractions
from ..training_settings import TrainingSettings
from .pairs import PairSource
from .prepared import PreparedPairs, prepare
from .scoring import LIKELIHOOD, score_sequences
from .tokenizer_pair import TokenizerPair

if TYPE_CHECKING:
    from torch import nn

    from .sequence_training_data import SequenceTrainingData

SCORED_SPLITS = ("validation", "test")


class SequencePairs(Task):
    """Writes target sequences for source sequences. Models follow
    :class:`~gnomon.search_spaces.sequence.SequenceToSequence`.

    Near duplicates are removed, splits are made by hashes of sources (see :func:`split_by_hash`), tokenizers
    are trained on the train split alone: sub-words of bytes for text, characters to symbols for data with a
    unit, such as phonemes.

    Args:
        data: What loads the pairs, for example ``gnomon.tasks.sequences.sources.CmuDict()``.
        training: The recipe: :class:`TrainingSettings` or a mapping of some of its fields. Images' ``shift``
            and ``flip`` must be off.
        metric: What quality is, from validation: ``bleu`` or ``chrf`` (both 0..1) for text, ``<unit>_accuracy``
            (1 - error rate) or ``exact`` for symbols, or ``likelihood`` (exp of minus the loss), which needs no
            decoding and so is cheap; None for BLEU or the accuracy of symbols. Test scores have all of them.
        fractions: Of train, validation and test; a sum below 1 uses a part of the data only.
        split_seed: Of the split; apart from the seeds of trainings.
        vocabulary_size: Of sub-words; symbols have as many as occur in the train split.
        shared_vocabulary: One vocabulary for both languages of text.
        max_tokens: Longest sequence; longer pairs are not learned from, longer sources are cut.
        decoded: So many pairs of validation are decoded for its metrics (its loss is of all); None for all.
        beam: Beams of decoding, of validation and test; 1 is greedy.
        length_penalty: Of beam search.

    Data are loaded at first use.
    """

    def __init__(
        self,
        data: PairSource,
        training: TrainingSettings | Mapping[str, Any] | None = None,
        metric: str | None = None,
        fractions: Sequence[float] = (0.8, 0.1, 0.1),
        split_seed: int = 0,
        vocabulary_size: int = 2000,
        shared_vocabulary: bool = True,
        max_tokens: int = 48,
        decoded: int | None = 500,
        beam: int = 1,
        length_penalty: float = 1.0,
    ) -> None:
        if not isinstance(data, PairSource):
            raise ConfigError(
                "not a source of pairs",
                field="task.data",
                value=data,
                allowed="a class of gnomon.tasks.sequences.sources",
            )
        self.name, self.source = data.name, data
        self.training = TrainingSettings.of(training).without_images()
        self.metric = _metric(metric, data.unit)
        self.fractions, self.split_seed = check_fractions(fractions), split_seed
        self.vocabulary_size, self.shared_vocabulary = vocabulary_size, shared_vocabulary
        self.max_tokens = _at_least("max_tokens", max_tokens, 2)
        self.decoded = None if decoded is None else _at_least("decoded", decoded, 1)
        self.beam = _at_least("beam", beam, 1)
        if not length_penalty >= 0:
            raise ConfigError("out of range", field="task.length_penalty", value=length_penalty, allowed="from 0")
        self.length_penalty = float(length_penalty)

    @cached_property
    def data(self) -> PreparedPairs:
        """Distinct pairs, split and in tokens."""
        return prepare(
            self.source.load(),
            self.fractions,
            self.split_seed,
            vocabulary_size=self.vocabulary_size,
            shared_vocabulary=self.shared_vocabulary,
            max_tokens=self.max_tokens,
        )

    @property
    def tokenizers(self) -> TokenizerPair:
        """Of sources and targets."""
        return self.data.tokenizers

    @cached_property
    def typical_lengths(self) -> tuple[int, int]:
        """Mean tokens of sources and targets of the train split, ``END`` included, rounded up: the lengths for
        which latency counts."""
        sides = (self.data.sources("train"), self.data.targets("train"))
        source, target = (-(-sum(map(len, side)) // len(side)) for side in sides)
        return source, target

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One typical source: its number of tokens."""
        return (self.typical_lengths[0],)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the vocabulary is in the tokenizers, which go into every model's folder."""
        return ()

    @property
    def preprocessing(self) -> dict[str, Any]:
        tokenizers = self.tokenizers
        return {
            "tokenizers": TokenizerPair.FILE,
            "languages": list(tokenizers.languages),
            "unit": tokenizers.unit,
            "max_tokens": tokenizers.max_tokens,
            "digest": tokenizers.digest(),
        }

    def assets(self) -> dict[str, str]:
        return {TokenizerPair.FILE: self.tokenizers.to_text()}

    def space_arguments(self) -> dict[str, Any]:
        """Vocabularies, typical lengths, and how many positions a model needs."""
        source_length, generated_length = self.typical_lengths
        return {
            "source_vocabulary": self.tokenizers.source.size,
            "target_vocabulary": self.tokenizers.target.size,
            "source_length": source_length,
            "generated_length": generated_length,
            "max_length": 2 * self.max_tokens,  # a decoder-only model counts positions through both
            "beam": self.beam,
        }

    @cached_property
    def _data_identity(self) -> dict[str, Any]:
        return {
            "task": "sequence_pairs",
            "name": self.name,
            "data": self.data.data.source,
            "data_hash": self.data.data_hash,
            "split_seed": self.split_seed,
            "split_sizes": self.data.splits.sizes,
            "near_duplicates_removed": self.data.near_duplicates,
            "too_long": self.data.too_long,
            "tokenizers": self.tokenizers.digest(),
        }

    def identity(self) -> dict[str, Any]:
        return {
            **self._data_identity,
            "metric": self.metric,
            "decoded": self.decoded,
            "beam": self.beam,
            "length_penalty": self.length_penalty,
            "training": self.training.to_dict(),
        }

    def example_keys(self, split: str) -> list[str]:
        return self.data.keys(split)

    def training_data(self) -> SequenceTrainingData:
        from .sequence_training_data import SequenceTrainingData

        return SequenceTrainingData(
            self.data,
            self.training,
            metric=self.metric,
            decoded=self.decoded,
            beam=self.beam,
            length_penalty=self.length_penalty,
        )

    def train(
        self,
        model: nn.Module,
        budget: float,
        *,
        seed: int,
        checkpoint: Path | None = None,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Trains in place for ``budget`` epochs (a fraction is a part of the last one), teacher-forced.

        The result is the last epoch's. The model is left in evaluation mode.

        Raises:
            TaskError: If the model does not fit the task, the loss diverges, or ``checkpoint`` holds another
                training.
        """
        from ..training import Trainer

        data = self.training_data()
        return Trainer(model, data, self.training, budget=budget, seed=seed, identity=self.identity()).run(
            checkpoint, progress
        )

    def score(self, model: nn.Module | Path, split: str) -> dict[str, float]:
        """Loss, likelihood and the metrics of what is written, of a torch module, or of the folder of an
        exported model through ONNX Runtime on the CPU.

        Raises:
            TaskError: If the split is not scored, or the model does not fit the task.
        """
        from .onnx_model import OnnxSequenceToSequence
        from .sequence_training_data import decoded_pairs

        if split not in SCORED_SPLITS:
            raise TaskError("this split is not scored", field="split", value=split, allowed=SCORED_SPLITS)
        return score_sequences(
            OnnxSequenceToSequence(model) if isinstance(model, (str, Path)) else model,
            self.data,
            split,
            decoded=decoded_pairs(split, self.metric, self.decoded),
            beam=self.beam,
            length_penalty=self.length_penalty,
        )

    def cost_hint_s(self, model: nn.Module, budget: float) -> float:
        """Times a few steps and one validation pass of a copy of ``model``."""
        return training_hint_s(model, self.training_data(), self.training, budget)


def _metric(metric: str | None, unit: str) -> str:
    allowed = (f"{unit}_accuracy", "exact", LIKELIHOOD) if unit else ("bleu", "chrf", LIKELIHOOD)
    if metric is None:
        return allowed[0]
    if metric not in allowed:
        raise ConfigError("unknown metric for these data", field="task.metric", value=metric, allowed=allowed)
    return metric


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigError("out of range", field=f"task.{name}", value=value, allowed=f"from {least}")
    return int(value)
