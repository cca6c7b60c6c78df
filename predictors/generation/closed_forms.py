"""Latency of generation in closed form: few coefficients for a model on a device, fitted from few measurements.

Prefill of N tokens takes ``a N^2 + b N + c``, a decode step after N tokens ``p N + q``: TimeBill (2512.21859,
equations of section 4) and EdgeReasoning (2511.01866), which pads N to multiples of a tile. The same forms hold for
energy where a device has a meter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from ...schema import Record

FloatArray = npt.NDArray[np.float64]

PESSIMISM = 5.0
"""TimeBill's k: a generation may be this many times longer than was predicted."""
MOST_EVICTED = 0.95
"""TimeBill's largest share of a prompt's keys and values that may be dropped."""


@dataclass(frozen=True)
class PrefillForm(Record):
    """``a N^2 + b N + c``, N padded to a multiple of ``tile``.

    Args:
        a, b, c: In ms (or mJ); none is negative.
        tile: Tokens that a kernel works on at once; EdgeReasoning has 128 on a Jetson, a CPU 1.
    """

    SCHEMA: ClassVar[str] = ""

    a: float
    b: float
    c: float
    tile: int = 1

    def __call__(self, tokens: npt.ArrayLike) -> FloatArray:
        """Time to the first token after prompts of ``tokens`` (any shape)."""
        padded = _padded(tokens, self.tile)
        return np.asarray(self.a * padded**2 + self.b * padded + self.c)


@dataclass(frozen=True)
class DecodeForm(Record):
    """``p N + q`` of one token after N others.

    Args:
        p, q: In ms (or mJ); none is negative.
    """

    SCHEMA: ClassVar[str] = ""

    p: float
    q: float

    def __call__(self, context: npt.ArrayLike) -> FloatArray:
        """Time of a token after ``context`` others (any shape)."""
        return np.asarray(self.p * np.asarray(context, dtype=np.float64) + self.q)

    def total(self, context: float, steps: int) -> float:
        """Of ``steps`` tokens, the first of them after ``context`` others."""
        return float(steps * (self.p * context + self.q) + self.p * steps * (steps - 1) / 2)


@dataclass(frozen=True)
class GenerationForm(Record):
    """A prompt and what is generated after it, in ms (or mJ)."""

    SCHEMA: ClassVar[str] = "gnomon.generation_form/1"

    prefill: PrefillForm
    decode: DecodeForm

    def total(self, prompt: int, generated: int, evicted: float = 0.0) -> float:
        """Of ``generated`` tokens after a prompt: prefill gives the first of them, each other one takes a step.

        Args:
            prompt: Its tokens.
            generated: At least 1.
            evicted: TimeBill's alpha: share of the prompt's keys and values that steps no longer see.
        """
        if generated < 1:
            raise PredictorError("nothing is generated", field="generated", value=generated, allowed="1 or more")
        if not 0.0 <= evicted <= 1.0:
            raise PredictorError("not a share", field="evicted", value=evicted, allowed="0 to 1")
        return float(self.prefill(prompt)) + self.decode.total((1.0 - evicted) * prompt, generated - 1)

    def worst_case(
        self, prompt: int, predicted: int, longest: int, *, evicted: float = 0.0, pessimism: float = PESSIMISM
    ) -> float:
        """Of a generation whose length was predicted: it may be ``pessimism`` times as long, or ``longest``."""
        return self.total(prompt, longest_generation(predicted, longest, pessimism), evicted)

    def eviction_for(
        self,
        budget: float,
        prompt: int,
        predicted: int,
        longest: int,
        *,
        pessimism: float = PESSIMISM,
        most: float = MOST_EVICTED,
    ) -> float | None:
        """TimeBill's rule: the least share of the prompt's keys and values to drop so that the worst case meets a
        budget.

        Returns:
            0 to ``most``; None where not even ``most`` is enough.
        """
        steps = longest_generation(predicted, longest, pessimism) - 1
        excess = self.worst_case(prompt, predicted, longest, pessimism=pessimism) - budget
        if excess <= 0:
            return 0.0
        saved = self.decode.p * steps * prompt  # by dropping all
        share = excess / saved if saved > 0 else np.inf
        return float(share) if share <= most else None


def longest_generation(predicted: int, longest: int, pessimism: float = PESSIMISM) -> int:
    """``min(k N, N_max)``, at least 1."""
    return max(min(int(np.ceil(pessimism * predicted)), longest), 1)


def fit_prefill(tokens: Sequence[int], values: Sequence[float], *, tile: int = 1) -> PrefillForm:
    """The form that comes nearest to measured prompts ``(N,)``, in ms or mJ.

    Coefficients are not negative and minimise the squared *relative* error, where TimeBill minimises the squared
    error: so short prompts count, too, and no length has a negative time.

    Raises:
        PredictorError: If there are fewer than three different lengths, or values are not positive.
    """
    if tile < 1:
        raise PredictorError("not a tile", field="tile", value=tile, allowed="1 or more")
    lengths, measured = _checked(tokens, values, least=3)
    padded = _padded(lengths, tile)
    a, b, c = _positive_fit(np.stack([padded**2, padded, np.ones_like(padded)], axis=1), measured)
    return PrefillForm(a, b, c, tile)


def fit_decode(contexts: Sequence[int], values: Sequence[float]) -> DecodeForm:
    """The form that comes nearest to measured steps ``(N,)``, in ms or mJ; see :func:`fit_prefill`.

    Raises:
        PredictorError: If there are fewer than two different contexts, or values are not positive.
    """
    lengths, measured = _checked(contexts, values, least=2)
    p, q = _positive_fit(np.stack([lengths, np.ones_like(lengths)], axis=1), measured)
    return DecodeForm(p, q)


def _padded(tokens: npt.ArrayLike, tile: int) -> FloatArray:
    return np.asarray(np.ceil(np.asarray(tokens, dtype=np.float64) / tile) * tile)


def _checked(lengths: Sequence[int], values: Sequence[float], least: int) -> tuple[FloatArray, FloatArray]:
    x, y = np.asarray(lengths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise PredictorError("as many values as lengths are needed", field="values", value=y.shape, allowed=x.shape)
    if len(np.unique(x)) < least:
        raise PredictorError("too few lengths", field="lengths", value=x.tolist(), allowed=f"{least} different ones")
    if not (np.isfinite(y) & (y > 0)).all() or (x < 0).any():
        raise PredictorError("not measurements", field="values", value=y.tolist(), allowed="positive and finite")
    return x, y


def _positive_fit(columns: FloatArray, values: FloatArray) -> list[float]:
    from scipy.optimize import nnls

    scale = np.abs(columns).max(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    solution, _ = nnls(columns / scale / values[:, None], np.ones(len(values)))
    return [float(number) for number in solution / scale]
