"""Loss and metrics of a model of sequences, torch or exported, on one split."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import GnomonError, TaskError
from .batching import SequenceBatch, padded
from .decoding import Writer, decode
from .metrics import symbol_metrics, text_metrics
from .prepared import PreparedPairs

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 4096
"""Source tokens of a batch, padding included: what fits in caches, but keeps matrices large."""
LIKELIHOOD = "likelihood"


def score_sequences(
    model: Any, data: PreparedPairs, split: str, *, decoded: int | None, beam: int = 1, length_penalty: float = 1.0
) -> dict[str, float]:
    """``loss`` (nats a target token, teacher-forced), ``likelihood`` (exp of -loss, the geometric mean of the
    right tokens' probabilities), and, of what the model writes by itself, the metrics of the data's unit.

    Args:
        model: A torch module, or an exported model.
        data: Whose split is scored.
        split: Its name.
        decoded: The loss is of all pairs, the other metrics are of so many, spread evenly over the split;
            None for all, 0 for no other metrics.
        beam, length_penalty: Of decoding.

    Raises:
        TaskError: If the model does not fit the data.
    """
    import torch

    sources, targets = data.sources(split), data.targets(split)
    with torch.inference_mode(), evaluating(model):
        loss = _mean_loss(model, sources, targets)
        scores = {"loss": loss, LIKELIHOOD: math.exp(-loss)}
        if decoded == 0:
            return scores
        # Evenly spread: neighbours come from one program, or begin with one letter.
        chosen = (
            np.linspace(0, len(sources) - 1, min(decoded or len(sources), len(sources))).round().astype(int).tolist()
        )
        written = write(
            model,
            [sources[i] for i in chosen],
            data.tokenizers.max_tokens,
            beam=beam,
            length_penalty=length_penalty,
        )
    hypotheses = [data.tokenizers.target.decode(ids) for ids in written]
    known = data.references_of(split)
    references = [known[i] for i in chosen]
    unit = data.data.unit
    figures = symbol_metrics(hypotheses, references, unit) if unit else text_metrics(hypotheses, references)
    return {**figures, **scores}


def write(
    model: Writer, sources: Sequence[Sequence[int]], max_tokens: int, *, beam: int = 1, length_penalty: float = 1.0
) -> list[list[int]]:
    """What the model writes for each source, in their order; sources of like length are read together."""
    device = _device(model)
    results: list[list[int]] = [[] for _ in sources]
    for numbers in _by_length([len(ids) for ids in sources], BATCH_TOKENS // beam):
        batch = padded([sources[i] for i in numbers]).to(device)
        with _explained(batch):
            written = decode(model, batch, max_tokens, beam=beam, length_penalty=length_penalty)
        for number, ids in zip(numbers, written, strict=True):
            results[number] = ids
    return results


def _mean_loss(model: Any, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> float:
    """Cross-entropy of all target tokens; in float64 sums, so that batches do not matter."""
    total, tokens, device = 0.0, 0, _device(model)
    lengths = [max(len(source), len(target)) for source, target in zip(sources, targets, strict=True)]
    for numbers in _by_length(lengths, BATCH_TOKENS):
        batch = SequenceBatch(padded([sources[i] for i in numbers]), padded([targets[i] for i in numbers])).to(device)
        with _explained(batch.source):
            logits = model(batch.source, batch.given)
        total += _summed_loss(logits, batch)
        tokens += int(batch.mask.sum())
    return total / tokens


def _summed_loss(logits: torch.Tensor, batch: SequenceBatch) -> float:
    import torch

    mask = batch.mask
    return float(torch.nn.functional.cross_entropy(logits[mask].double(), batch.target[mask], reduction="sum"))


def _by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Numbers of examples, short ones first, in batches of at most so many tokens with padding."""
    order = np.argsort(np.asarray(lengths), kind="stable").tolist()
    while order:
        # Longer examples follow: the batch's width is that of its last one.
        count = next((n for n in range(1, len(order)) if (n + 1) * lengths[order[n]] > tokens), len(order))
        yield order[:count]
        order = order[count:]


def _device(model: Any) -> torch.device:
    import torch

    parameters = getattr(model, "parameters", None)
    first = next(parameters(), None) if parameters is not None else None
    return torch.device("cpu") if first is None else first.device


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Torch modules in evaluation mode inside, as they were outside."""
    if not hasattr(model, "train"):
        yield
        return
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _explained(source: torch.Tensor) -> Iterator[None]:
    """A model that does not fit the task says so in a line."""
    try:
        yield
    except GnomonError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(f"the model cannot run on sources {tuple(source.shape)}: {line}") from error
