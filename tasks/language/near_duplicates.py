"""Documents that nearly repeat another: a test on one of them would ask what was learned by heart.

Resemblance after Broder (1997, "On the resemblance and containment of documents"): the share of runs of words that two
documents have in common, estimated from those runs of both that have the smallest hashes.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

WORDS = re.compile(r"[^\W_]+")
DIGITS = re.compile(r"\d+")
RUN = 5
"""Words of a run."""
SKETCH = 200
"""Hashes that stand for a document: a resemblance is known to about .03."""
RESEMBLANCE = 0.7
"""From here on, two documents are nearly the same."""

Sketch = npt.NDArray[np.uint64]


def first_of_near_duplicates(texts: Sequence[str], resemblance: float = RESEMBLANCE) -> list[int]:
    """Numbers of the documents that remain, in their order, when each that resembles one before is left out.

    Case, numbers and everything that is no word do not count.
    """
    kept: list[int] = []
    sketches: dict[int, frozenset[int]] = {}
    holders: dict[int, list[int]] = defaultdict(list)
    for number, text in enumerate(texts):
        own = frozenset(sketch(text).tolist())
        shared = Counter(other for value in own for other in holders[value])
        # The smallest hashes of both are at least as many as this one's: who shares fewer is not worth a closer look.
        candidates = [other for other, count in shared.items() if count >= resemblance * len(own)]
        if any(_resemblance(own, sketches[other]) >= resemblance for other in candidates):
            continue
        kept.append(number)
        sketches[number] = own
        for value in own:
            holders[value].append(number)
    return kept


def sketch(text: str) -> Sketch:
    """The smallest distinct hashes of a document's runs of words, at most ``SKETCH``."""
    words = WORDS.findall(DIGITS.sub("0", text.lower())) or [text]
    hashes = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
    run = min(RUN, len(hashes))
    runs = np.zeros(len(hashes) - run + 1, dtype=np.uint64)
    for offset in range(run):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + hashes[offset : offset + len(runs)]
    return np.unique(_mixed(runs))[:SKETCH]


def _mixed(values: Sketch) -> Sketch:
    """Sums of products as values that are as good as random (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _resemblance(first: frozenset[int], second: frozenset[int]) -> float:
    """Share of common runs among the smallest hashes of both."""
    smallest = sorted(first | second)[:SKETCH]
    return sum(value in first and value in second for value in smallest) / len(smallest)
