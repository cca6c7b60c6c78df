"""Bits per byte and recall of a language model, torch or exported.

Shapes: B windows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ...errors import DataError, GnomonError, TaskError
from ..sequences.scoring import evaluating
from .prepared import Ids
from .recall import Flags, Rows
from .windows import SCORED_TOKENS, WindowBatch, scored_batches

if TYPE_CHECKING:
    import torch

LIKELIHOOD = "likelihood_per_byte"
BITS = "bits_per_byte"
RECALL = "recall"

STEPPED_TOKENS = 16 * SCORED_TOKENS
"""Of a model that goes token by token: a step costs little more with many sequences than with one."""

Range = tuple[int, int]


@runtime_checkable
class Stepwise(Protocol):
    """A model that gives logits token by token, such as an exported one."""

    def stepped(self, tokens: torch.Tensor, prompt: int) -> Iterator[torch.Tensor]:
        """Reads ``prompt`` tokens of ``tokens`` ``(B, T)`` at once and the rest one by one; yields logits ``(B, V)`` of
        the token after the prompt, and after each token that follows."""


@dataclass(frozen=True)
class PositionTotals:
    """Sums over windows by position ``(T,)``: a token's position is the number of tokens of its window before it, less
    one; so the first that is predicted has position 0.

    Args:
        nats: Of the tokens that are predicted.
        byte_counts: Of text that they stand for.
        tokens: How many they are.
    """

    nats: npt.NDArray[np.float64]
    byte_counts: npt.NDArray[np.float64]
    tokens: npt.NDArray[np.float64]

    def bits_per_byte(self, positions: Range | None = None) -> float:
        """Over a range of positions, both ends included; None for all.

        Raises:
            DataError: If no window has text there.
        """
        first, last = positions or (0, len(self.nats) - 1)
        chosen = slice(first, last + 1)
        if self.byte_counts[chosen].sum() == 0:
            raise DataError("no scored window has text there", field="task.ranges", value=[first, last])
        return float(self.nats[chosen].sum() / self.byte_counts[chosen].sum() / math.log(2))

    def scores(self, ranges: Sequence[Range]) -> dict[str, float]:
        """``likelihood_per_byte`` (2 to the minus bits per byte: larger is better), ``bits_per_byte``, ``loss`` (nats a
        token), and the first two of each range of positions."""
        found = {"loss": float(self.nats.sum() / self.tokens.sum())}
        for positions in (None, *ranges):
            bits = self.bits_per_byte(positions)
            found |= {range_name(BITS, positions): bits, range_name(LIKELIHOOD, positions): 2.0**-bits}
        return found


def range_name(name: str, positions: Range | None) -> str:
    """What a figure of a range of positions is called, for example ``bits_per_byte_512_1023``."""
    return name if positions is None else f"{name}_{positions[0]}_{positions[1]}"


def score_windows(
    model: Any, windows: Sequence[Ids], byte_lengths: npt.NDArray[np.int64], length: int
) -> PositionTotals:
    """What a model pays for every token of some windows.

    Args:
        model: A torch module from ids ``(B, T)`` to logits ``(B, T, V)``, or a :class:`Stepwise` one.
        windows: Of at most ``length + 1`` ids; those of like length are scored together.
        byte_lengths: Of the text of each token ``(V,)``.
        length: T.

    Raises:
        TaskError: If the model does not fit the task.
    """
    import torch

    nats, byte_counts, tokens = (np.zeros(length) for _ in range(3))
    with torch.inference_mode(), evaluating(model):
        for batch in scored_batches(windows, _tokens_at_once(model)):
            mask, width = batch.mask.numpy(), batch.inputs.shape[1]
            nats[:width] += (_nats(model, batch, len(byte_lengths)) * mask).sum(0)
            byte_counts[:width] += (byte_lengths[batch.targets.numpy()] * mask).sum(0)
            tokens[:width] += mask.sum(0)
    return PositionTotals(nats, byte_counts, tokens)


def score_recall(model: Any, rows: Rows, answers: Flags, vocabulary: int) -> float:
    """Share of answers that the model finds likeliest of all tokens.

    Args:
        model: As in :func:`score_windows`.
        rows: Sequences ``(B, T)``.
        answers: Which of their tokens are answers, the same columns in each row.
        vocabulary: V.

    Raises:
        TaskError: If the model does not fit the task.
    """
    import torch

    inputs, places = torch.from_numpy(rows[:, :-1]), np.flatnonzero(answers[0]) - 1
    right, size = 0, max(1, _tokens_at_once(model) // rows.shape[1])
    with torch.inference_mode(), evaluating(model):
        for part, truth in zip(inputs.split(size), torch.from_numpy(rows[:, places + 1]).split(size), strict=True):
            right += int((_chosen(model, part, places, vocabulary) == truth).sum())
    return right / (len(rows) * len(places))


def mean_recall(model: Any, sequences: Mapping[int, tuple[Rows, Flags]], vocabulary: int) -> dict[str, float]:
    """``recall``, the mean over distances, and of each distance, for example ``recall_600``."""
    found = {distance: score_recall(model, *made, vocabulary) for distance, made in sequences.items()}
    return {RECALL: sum(found.values()) / len(found), **{f"{RECALL}_{distance}": v for distance, v in found.items()}}


def checked_logits(model: Any, inputs: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """Logits ``(B, T, V)`` of a torch module for ids ``(B, T)``.

    Raises:
        TaskError: If it cannot run, or gives something else.
    """
    device = next((parameter.device for parameter in model.parameters()), inputs.device)
    with explained(inputs):
        outputs: torch.Tensor = model(inputs.to(device))
    _check_shape(outputs, (*inputs.shape, vocabulary))
    return outputs


@contextmanager
def explained(inputs: torch.Tensor) -> Iterator[None]:
    """A model that does not fit the task says so in a line."""
    try:
        yield
    except GnomonError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TaskError(f"the model cannot run on tokens {tuple(inputs.shape)}: {line}") from error


def _tokens_at_once(model: Any) -> int:
    return STEPPED_TOKENS if isinstance(model, Stepwise) else SCORED_TOKENS


def _nats(model: Any, batch: WindowBatch, vocabulary: int) -> npt.NDArray[np.float64]:
    """Of every target ``(B, T)``; those of padding mean nothing."""
    if isinstance(model, Stepwise):
        steps = _stepped(model, batch.inputs, 1, vocabulary)
        columns = [_cross_entropy(now, targets) for now, targets in zip(steps, batch.targets.unbind(1), strict=True)]
        return np.stack(columns, axis=1)
    logits = checked_logits(model, batch.inputs, vocabulary)
    return _cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).reshape(batch.targets.shape)


def _stepped(model: Stepwise, inputs: torch.Tensor, prompt: int, vocabulary: int) -> Iterator[torch.Tensor]:
    for logits in model.stepped(inputs, prompt):
        _check_shape(logits, (len(inputs), vocabulary))
        yield logits


def _check_shape(logits: torch.Tensor, expected: tuple[int, ...]) -> None:
    if tuple(logits.shape) != expected:
        raise TaskError(
            "the model does not give one logit per token of the vocabulary",
            field="output shape",
            value=tuple(logits.shape),
            allowed=f"{expected} for this batch",
        )


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> npt.NDArray[np.float64]:
    import torch

    nats = torch.nn.functional.cross_entropy(logits.float(), targets.to(logits.device), reduction="none")
    found: npt.NDArray[np.float64] = nats.double().cpu().numpy()
    return found


def _chosen(model: Any, inputs: torch.Tensor, places: npt.NDArray[np.int64], vocabulary: int) -> torch.Tensor:
    """Likeliest tokens ``(B, places)`` after the inputs at some places."""
    import torch

    if isinstance(model, Stepwise):
        first = int(places[0])
        wanted = set((places - first).tolist())
        steps = enumerate(_stepped(model, inputs, first + 1, vocabulary))
        return torch.stack([now.argmax(-1) for number, now in steps if number in wanted], dim=1)
    logits = checked_logits(model, inputs, vocabulary)
    return logits[:, torch.from_numpy(places).to(logits.device)].argmax(-1).cpu()
