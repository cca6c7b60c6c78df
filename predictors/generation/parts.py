"""Parts of a language model, as a look-up table lists them: what they are, and how they lie between others.

Shapes: K sizes of a part, P parts of one kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ...schema import Record
from ...search_spaces.hybrid_slm.sizes import MixerSizes
from ...search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from ...search_spaces.hybrid_slm.work import reads
from .work import Phase, operator_work

FloatArray = npt.NDArray[np.float64]

BASE = "base"
"""Kind of what remains of a model without operators: embedding, last norm, output layer, and the call itself."""
MIXER_SIZES = ("width", "heads", "kv_heads", "head_size", "window")
FFN_SIZES = ("width", "ffn_width", "fan_in")
BASE_SIZES = ("width", "vocabulary")
OFF_THE_LINE = 0.03
"""A part lies between two others if each of its sizes is that close to their line, relative to the size."""


@dataclass(frozen=True)
class Part(Record):
    """An operator of any model, or a base.

    Args:
        kind: Of the operator, or ``base``.
        sizes: What latency depends on: of a mixer width, heads, KV heads, head size and window (1 where it has
            none); of a feed-forward width, its own width and fan-in (0 for all); of a base width and vocabulary.
    """

    SCHEMA: ClassVar[str] = ""

    kind: str
    sizes: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sizes."""
        return {BASE: BASE_SIZES, FFN: FFN_SIZES}.get(self.kind, MIXER_SIZES)

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name} {size}' for name, size in zip(self.names, self.sizes, strict=True))})"


def operator_part(operator: Operator) -> Part:
    """The part that an operator is."""
    if operator.kind == FFN:
        return Part(FFN, (operator.sizes.width, operator.ffn_width, operator.fan_in or 0))
    unread = _unread(operator.kind)
    return Part(operator.kind, tuple(1 if name in unread else getattr(operator.sizes, name) for name in MIXER_SIZES))


@cache
def _unread(kind: str) -> tuple[str, ...]:
    """Sizes that a mixer has no use for."""
    return tuple(name for name in ("kv_heads", "window") if not reads(kind, name))


def base_part(spec: LanguageModelSpec) -> Part:
    """The part of a model that is no operator."""
    return Part(BASE, (spec.width, spec.vocabulary))


@lru_cache(maxsize=16384)
def part_macs(part: Part, phase: Phase, length: int) -> float:
    """Multiply-accumulates of a part, by which parts are interpolated; ``length`` with meta tokens."""
    if part.kind == BASE:
        width, vocabulary = part.sizes
        return float(width * vocabulary)
    if part.kind == FFN:
        width, ffn_width, fan_in = part.sizes
        sizes = MixerSizes(width=width, heads=1, kv_heads=1, head_size=width)
        return float(operator_work(Operator(FFN, sizes, ffn_width, fan_in or None), phase, length).macs)
    sizes = MixerSizes(**dict(zip(MIXER_SIZES, part.sizes, strict=True)))
    return float(operator_work(Operator(part.kind, sizes), phase, length).macs)


def neighbours(part: Part, measured: Sequence[Part]) -> tuple[Part, Part] | None:
    """The two parts of the same kind that lie closest around ``part`` on a straight line of sizes.

    Between a width of 128 with 4 heads and one of 256 with 8 lies a width of 192 with 6: whatever a space makes
    proportional to the width, and whatever it keeps, is on that line.

    Returns:
        None where there are none.
    """
    others = [other for other in measured if other.kind == part.kind]
    if len(others) < 2:
        return None
    sizes = np.array([other.sizes for other in others], dtype=np.float64)  # (P, K)
    wanted = np.array(part.sizes, dtype=np.float64)
    best: tuple[float, Part, Part] | None = None
    for i in range(len(others)):
        for j in range(i + 1, len(others)):
            span = _on_the_line(wanted, sizes[i], sizes[j])
            if span is not None and (best is None or span < best[0]):
                best = (span, others[i], others[j])
    return None if best is None else best[1:]


def _on_the_line(wanted: FloatArray, one: FloatArray, other: FloatArray) -> float | None:
    """Length of the line from ``one`` to ``other``, in sizes relative to the wanted, if that lies between them."""
    scale = np.maximum(np.abs(wanted), 1.0)
    direction, offset = (other - one) / scale, (wanted - one) / scale
    square = float(direction @ direction)
    if square == 0.0:
        return None
    share = float(offset @ direction) / square
    if not 0.0 <= share <= 1.0 or np.abs(offset - share * direction).max() > OFF_THE_LINE:
        return None
    return float(np.sqrt(square))
