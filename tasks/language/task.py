"""Language modelling: the next token of text, from all before it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, DataError, TaskError
from ...records import Evaluation
from ..base import Progress, Task
from ..cost_hint import busy_s
from ..splits import check_fractions
from ..training_settings import TrainingSettings
from .prepared import Ids, PreparedTexts, prepare
from .recall import Recall, RecallSequences
from .scoring import LIKELIHOOD, RECALL, Range, mean_recall, range_name, score_windows
from .text_tokenizer import TextTokenizer
from .texts import TextSource
from .windows import WindowPlan, scored_windows

if TYPE_CHECKING:
    from torch import nn

    from .language_training_data import LanguageTrainingData

SCORED_SPLITS = ("validation", "test")
RECALL_SEEDS = {"validation": 1, "test": 2}


class LanguageModelling(Task):
    """Predicts the next token. Models are modules from ids ``(B, T)`` to logits ``(B, T, V)``, causal, such as
    :class:`~gnomon.search_spaces.hybrid_slm.model.LanguageModel`.

    Documents that nearly repeat another are removed, splits are made of whole documents by hashes of their texts,
    sub-words are learned from the train split alone.

    Args:
        data: What loads the texts, for example ``gnomon.tasks.language.sources.TextFiles("books")``.
        training: The recipe: :class:`TrainingSettings` or a mapping of some of its fields; ``batch_size`` is the
            number of windows of ``length``. Images' ``shift`` and ``flip`` must be off.
        metric: What quality is, from validation: ``likelihood_per_byte`` (2 to the minus bits per byte), the same of
            one of ``ranges``, for example ``likelihood_per_byte_512_1023``, or ``recall``.
        fractions: Of documents for train, validation and test; a sum below 1 uses a part of the data only.
        split_seed: Of the split; apart from the seeds of trainings.
        vocabulary_size: Of sub-words (byte-pair encoding); None for bytes.
        length: Tokens of a window in training.
        last_length: Tokens of a window in the last steps; None for ``length``. The tokens of a step stay the same.
        last_share: Share of a training's steps that are the last ones.
        tokens_per_epoch: An epoch is as many whole steps as fit in; epochs are not passes over the text.
        weight_normalisation: After every step, see
            :func:`~gnomon.tasks.language.weight_normalisation.normalise_weights`. Needs a model with ``roles``.
        exit_weight: Of an early exit's loss beside the last head's, for models that have one.
        running_weight: Price of operators that routers run, in nats for all of them, for models that have routers.
        ranges: Ranges of positions within a scored window, both ends included, whose figures are given apart.
        recall: See :class:`~gnomon.tasks.language.recall.Recall`: that, or a mapping of some of its fields; None for
            neither test nor training of it.
        scored: Validation windows that are scored after each epoch, spread evenly over the split; None for all.
        scored_test: Likewise of the test split.
        scored_onnx: As many windows (and sequences of recall at each distance) of either split are scored of an
            exported model, which reads token by token; None for as many as of a module.

    Windows are scored at the longest length that is trained on; none reaches over the end of a document. Data are
    loaded at first use.
    """

    def __init__(
        self,
        data: TextSource,
        training: TrainingSettings | Mapping[str, Any] | None = None,
        metric: str = LIKELIHOOD,
        fractions: Sequence[float] = (0.9, 0.05, 0.05),
        split_seed: int = 0,
        vocabulary_size: int | None = None,
        length: int = 1024,
        last_length: int | None = None,
        last_share: float = 0.1,
        tokens_per_epoch: int = 262_144,
        weight_normalisation: bool = False,
        exit_weight: float = 0.3,
        running_weight: float = 0.05,
        ranges: Sequence[Sequence[int]] = (),
        recall: Recall | Mapping[str, Any] | None = None,
        scored: int | None = 64,
        scored_test: int | None = 256,
        scored_onnx: int | None = 16,
    ) -> None:
        if not isinstance(data, TextSource):
            raise ConfigError(
                "not a source of texts",
                field="task.data",
                value=data,
                allowed="a class of gnomon.tasks.language.sources",
            )
        self.name, self.source = data.name, data
        self.training = TrainingSettings.of(training).without_images()
        self.fractions, self.split_seed = check_fractions(fractions), split_seed
        self.vocabulary_size = vocabulary_size
        self.plan = WindowPlan(length, self.training.batch_size, tokens_per_epoch, last_length, last_share)
        self.weight_normalisation = bool(weight_normalisation)
        for name, weight in (("exit_weight", exit_weight), ("running_weight", running_weight)):
            if not weight >= 0:
                raise ConfigError("out of range", field=f"task.{name}", value=weight, allowed="from 0")
        self.exit_weight, self.running_weight = float(exit_weight), float(running_weight)
        self.ranges = tuple(_range(positions, self.plan.longest) for positions in ranges)
        self.recall = Recall.of(recall)
        self.metric = _metric(metric, self.ranges, self.recall)
        for name, value in (("scored", scored), ("scored_test", scored_test), ("scored_onnx", scored_onnx)):
            if value is not None and value < 1:
                raise ConfigError("out of range", field=f"task.{name}", value=value, allowed="from 1, or null")
        self.scored, self.scored_test, self.scored_onnx = scored, scored_test, scored_onnx

    # ---- Data ----------------------------------------------------------------------------------

    @cached_property
    def data(self) -> PreparedTexts:
        """Distinct documents, split and in tokens."""
        return prepare(self.source.load(), self.fractions, self.split_seed, vocabulary_size=self.vocabulary_size)

    @property
    def tokenizer(self) -> TextTokenizer:
        """Bytes or sub-words."""
        return self.data.tokenizer

    def windows(self, split: str, *, exported: bool = False) -> list[Ids]:
        """What is scored of a split; of an exported model the first of these, spread evenly.

        Raises:
            TaskError: If the split is not scored.
            DataError: If no window reaches into one of the ranges.
        """
        if split not in SCORED_SPLITS:
            raise TaskError("this split is not scored", field="split", value=split, allowed=SCORED_SPLITS)
        count = self.scored if split == "validation" else self.scored_test
        if exported and self.scored_onnx is not None:
            count = self.scored_onnx if count is None else min(count, self.scored_onnx)
        found = scored_windows(self.data.of_split(split), self.plan.longest, count)
        for first, last in self.ranges:
            if max(map(len, found)) - 1 <= first:
                raise DataError(
                    f"no scored window of {split} is so long",
                    field="task.ranges",
                    value=[first, last],
                    allowed=f"positions below {max(map(len, found)) - 1}, longer documents, or more scored windows",
                )
        return found

    # ---- What it says about itself ---------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One window: its number of tokens."""
        return (self.plan.longest,)

    @property
    def labels(self) -> tuple[str, ...]:
        """None: the vocabulary is in the tokenizer, which goes into every model's folder."""
        return ()

    @property
    def preprocessing(self) -> dict[str, Any]:
        return {
            "tokenizer": TextTokenizer.FILE,
            "kind": self.tokenizer.kind,
            "length": self.plan.longest,
            "digest": self.tokenizer.digest(),
        }

    def assets(self) -> dict[str, str]:
        return {TextTokenizer.FILE: self.tokenizer.to_text()}

    def space_arguments(self) -> dict[str, Any]:
        """Size of the vocabulary, how many positions a model needs, and the context that is trained and scored."""
        longest = self.plan.longest
        return {
            "vocabulary": self.tokenizer.size,
            "max_length": max(longest, self.recall.longest if self.recall else 0),
            "context": longest,
        }

    @cached_property
    def _data_identity(self) -> dict[str, Any]:
        return {
            "task": "language_modelling",
            "name": self.name,
            "data": self.data.data.source,
            "licence": self.data.data.licence,
            "data_hash": self.data.data_hash,
            "split_seed": self.split_seed,
            "split_sizes": self.data.splits.sizes,
            "split_bytes": self.data.split_bytes(),
            "near_duplicates_removed": self.data.near_duplicates,
            "unreadable": self.data.data.unreadable,
            "tokenizer": self.tokenizer.digest(),
        }

    def identity(self) -> dict[str, Any]:
        return {
            **self._data_identity,
            "metric": self.metric,
            "length": self.plan.length,
            "last_length": self.plan.last_length,
            "last_share": self.plan.last_share,
            "tokens_per_epoch": self.plan.tokens_per_epoch,
            "weight_normalisation": self.weight_normalisation,
            "exit_weight": self.exit_weight,
            "running_weight": self.running_weight,
            "ranges": [list(positions) for positions in self.ranges],
            "recall": None if self.recall is None else self.recall.to_dict(),
            "scored": [self.scored, self.scored_test, self.scored_onnx],
            "training": self.training.to_dict(),
        }

    def example_keys(self, split: str) -> list[str]:
        return self.data.keys(split)

    # ---- Training and scores -----------------------------------------------------------------------

    def training_data(self) -> LanguageTrainingData:
        from .language_training_data import LanguageTrainingData

        for split in SCORED_SPLITS:  # what cannot be scored need not be trained
            self.windows(split, exported=True)
            if self.recall is not None:
                RecallSequences.check(self.data.stream(split), self.recall.distances)
        return LanguageTrainingData(
            self.data.stream("train"),
            self.plan,
            self.tokenizer.size,
            metric=self.metric,
            scorer=self.score,
            label_smoothing=self.training.label_smoothing,
            recall=None if self.recall is None else RecallSequences(self.recall, self.tokenizer),
            weight_normalisation=self.weight_normalisation,
            exit_weight=self.exit_weight,
            running_weight=self.running_weight,
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
        """Trains in place for ``budget`` epochs of ``tokens_per_epoch`` (a fraction is a part of the last one).

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
        """``likelihood_per_byte``, ``bits_per_byte`` (both of each range, too) and ``loss`` (nats a token) of a torch
        module, or of the folder of an exported model through ONNX Runtime on the CPU; of ``test`` also ``recall``.

        A module is scored on all chosen windows, an exported model on ``scored_onnx`` of them; the same of a module is
        :meth:`score_as_exported`.

        Raises:
            TaskError: If the split is not scored, or the model does not fit the task.
        """
        if not isinstance(model, (str, Path)):
            return self._score(model, split, exported=False)
        from .onnx_model import OnnxLanguageModel

        return self._score(OnnxLanguageModel(model), split, exported=True)

    def score_as_exported(self, model: nn.Module, split: str) -> dict[str, float]:
        """Scores of a module on the very windows that an exported model is scored on, to compare the two.

        Raises:
            TaskError: If the split is not scored, or the model does not fit the task.
        """
        return self._score(model, split, exported=True)

    def cost_hint_s(self, model: nn.Module, budget: float) -> float:
        """Times one window of training, as whole steps of a large model take minutes. A token that is scored is taken
        to cost a third of one that is learned."""
        data = self.training_data()
        batch = next(iter(data.batches(0, 0)))
        window = data.part(batch, 0, len(batch.inputs))
        trial = copy.deepcopy(model).train()

        def learn() -> None:
            data.loss(data.logits(trial, window), window).backward()

        learn()
        a_token = busy_s(learn) / window.inputs.numel()
        learned = data.batches_per_epoch * batch.inputs.numel()
        scored = sum(len(each) for each in self.windows("validation"))
        return budget * a_token * (learned + scored / 3)

    def _score(self, model: Any, split: str, *, exported: bool) -> dict[str, float]:
        windows = self.windows(split, exported=exported)
        totals = score_windows(model, windows, self.tokenizer.byte_lengths, self.plan.longest)
        scores = totals.scores(self.ranges)
        if self.recall is None or (split != "test" and self.metric != RECALL):
            return scores
        made, text = RecallSequences(self.recall, self.tokenizer), self.data.stream(split)
        most = self.scored_onnx if exported else None
        sequences = {}
        for distance in self.recall.distances:
            rows, answers = made.scored(text, distance, RECALL_SEEDS[split])
            sequences[distance] = (rows[:most], answers[:most])
        return scores | mean_recall(model, sequences, self.tokenizer.size)


def _range(positions: Sequence[int], length: int) -> Range:
    """Positions, checked."""
    if len(positions) != 2 or not 0 <= positions[0] <= positions[1] < length:
        raise ConfigError(
            "not a range of positions",
            field="task.ranges",
            value=list(positions),
            allowed=f"[first, last] within 0 to {length - 1}, the positions of the longest windows",
        )
    return int(positions[0]), int(positions[1])


def _metric(metric: str, ranges: Sequence[Range], recall: Recall | None) -> str:
    allowed = [range_name(LIKELIHOOD, positions) for positions in (None, *ranges)]
    if recall is not None:
        allowed.append(RECALL)
    if metric not in allowed:
        raise ConfigError("unknown metric for these settings", field="task.metric", value=metric, allowed=allowed)
    return metric
