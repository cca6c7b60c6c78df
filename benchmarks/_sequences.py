"""Trainings of models of sequences that keep what was written, and paired comparisons of that.

Shapes: S seeds, N test sentences, K statistics of a sentence, from whose sums over sentences the score follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks._trainings import Training, task_of
from gnomon.schema import Record
from gnomon.tasks.sequences.metrics import edit_distance, symbol_metrics, text_metrics
from gnomon.tasks.sequences.scoring import evaluating, write
from gnomon.tasks.sequences.task import SequencePairs

if TYPE_CHECKING:
    from torch import nn

FloatArray = npt.NDArray[np.float64]

BOOTSTRAPS = 1000


@dataclass(frozen=True)
class SequenceResult(Record):
    """What a training of a model of sequences gave.

    Args:
        validation, test: Figures by name, of whole splits.
        written: For each test sentence, in the split's order.
        seconds: On one thread.
    """

    SCHEMA: ClassVar[str] = ""

    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)
    written: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class SequenceTraining(Training):
    """One training of a model of sequences from scratch."""

    RESULT: ClassVar[type[Record]] = SequenceResult

    def result(self, model: nn.Module, seconds: float) -> SequenceResult:
        """Scores on validation; of test all that is written, decoded as the task says."""
        import torch

        task = pairs_of(self.task)
        data = task.data
        with torch.inference_mode(), evaluating(model):
            ids = write(
                model, data.sources("test"), task.max_tokens, beam=task.beam, length_penalty=task.length_penalty
            )
        written = tuple(data.tokenizers.target.decode(tokens) for tokens in ids)
        references, unit = data.references_of("test"), data.data.unit
        test = symbol_metrics(written, references, unit) if unit else text_metrics(written, references)
        return SequenceResult(task.score(model, "validation"), test, written, seconds)


@dataclass(frozen=True)
class ValidatedTraining(SequenceTraining):
    """A training that is scored on validation alone, as the task says."""

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "scored": "validation"}

    def result(self, model: nn.Module, seconds: float) -> SequenceResult:
        return SequenceResult(task_of(self.task).score(model, "validation"), seconds=seconds)


def pairs_of(words: tuple[str, ...]) -> SequencePairs:
    """The task of these words of ``gnomon search``."""
    task = task_of(words)
    assert isinstance(task, SequencePairs)
    return task


@dataclass(frozen=True)
class Score:
    """A corpus score from sums over sentences.

    Args:
        statistics: Of what one model wrote: ``(N, K)``.
        of_sums: The score 0..1 of sums ``(K,)``.
    """

    statistics: Callable[[Sequence[str]], FloatArray]
    of_sums: Callable[[FloatArray], float]


def score_named(metric: str, references: Sequence[tuple[str, ...]]) -> Score:
    """``bleu`` or ``chrf`` by SacreBLEU's own statistics, or any other name for 1 minus the error rate of symbols."""
    if metric not in ("bleu", "chrf"):
        return Score(lambda written: _errors(written, references), lambda sums: float(1 - sums[0] / max(1.0, sums[1])))
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scorer: Any = BLEU() if metric == "bleu" else CHRF()
    most = max(len(known) for known in references)
    streams: Any = [[known[i] if i < len(known) else None for known in references] for i in range(most)]

    # What SacreBLEU's own paired bootstrap resamples (sacrebleu.significance).
    def statistics(written: Sequence[str]) -> FloatArray:
        return np.array(scorer._extract_corpus_statistics(list(written), streams), dtype=np.float64)

    def of_sums(sums: FloatArray) -> float:
        return float(scorer._aggregate_and_compute([[int(n) for n in sums]]).score) / 100

    return Score(statistics, of_sums)


def _errors(written: Sequence[str], references: Sequence[tuple[str, ...]]) -> FloatArray:
    """Errors and symbols against the nearest reference, as :func:`symbol_metrics` counts them."""
    rows = []
    for hypothesis, known in zip(written, references, strict=True):
        symbols = hypothesis.split()
        distances = [(edit_distance(symbols, other.split()), -len(other.split())) for other in known]
        distance, length = min(distances)
        rows.append((distance, -length))
    return np.array(rows, dtype=np.float64)


@dataclass(frozen=True)
class Difference:
    """How much better one model is than another, in the metric's unit.

    Args:
        mean: Over seeds.
        low, high: 95 % interval over sentences, which both models share, and seeds.
        p_value: Share of resamples, twice the smaller side, in which the sign is another.
    """

    mean: float
    low: float
    high: float
    p_value: float


def paired_difference(
    score: Score, ours: Sequence[Sequence[str]], theirs: Sequence[Sequence[str]], seed: int = 0
) -> Difference:
    """Paired bootstrap (Koehn 2004) over sentences, and over the seeds of either model.

    Args:
        score: Of what was written.
        ours, theirs: What was written for the same sentences, once a seed.
        seed: Of the resampling.
    """
    sides = [np.stack([score.statistics(written) for written in side]) for side in (ours, theirs)]  # (S, N, K)
    sentences = sides[0].shape[1]
    rng = np.random.default_rng(seed)

    def mean(side: FloatArray, counts: FloatArray, seeds: npt.NDArray[np.int64]) -> float:
        return float(np.mean([score.of_sums(counts @ side[number]) for number in seeds]))

    ones = np.ones(sentences)
    observed = [mean(side, ones, np.arange(len(side))) for side in sides]
    drawn = np.empty(BOOTSTRAPS)
    for index in range(BOOTSTRAPS):
        counts = rng.multinomial(sentences, np.full(sentences, 1.0 / sentences)).astype(np.float64)
        first, second = (mean(side, counts, rng.integers(len(side), size=len(side))) for side in sides)
        drawn[index] = first - second
    low, high = np.quantile(drawn, [0.025, 0.975])
    p_value = min(1.0, 2 * min(float(np.mean(drawn <= 0)), float(np.mean(drawn >= 0))))
    return Difference(observed[0] - observed[1], float(low), float(high), p_value)
