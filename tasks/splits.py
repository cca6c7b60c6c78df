"""Train, validation and test splits that share no example.

Duplicates are removed before splitting: one copy in train and another in test would make the
test score a memory test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DataError
from .image_data import LabelArray

IndexArray = npt.NDArray[np.int64]
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Disjoint, sorted example numbers of each split."""

    train: IndexArray
    validation: IndexArray
    test: IndexArray

    NAMES: ClassVar[tuple[str, ...]] = SPLITS

    def __getitem__(self, split: str) -> IndexArray:
        if split not in SPLITS:
            raise ConfigError("no such split", field="split", value=split, allowed=SPLITS)
        indices: IndexArray = getattr(self, split)
        return indices

    @property
    def sizes(self) -> dict[str, int]:
        return {split: len(self[split]) for split in SPLITS}


def example_keys(examples: npt.NDArray[Any]) -> list[str]:
    """A hash of the raw bytes of each example ``(N, ...)``; equal examples have equal keys."""
    return [blake2b(np.ascontiguousarray(example).tobytes(), digest_size=16).hexdigest() for example in examples]


def first_occurrences(keys: Sequence[str]) -> IndexArray:
    """Sorted indices of the first example of each key: what remains when copies are removed."""
    first: dict[str, int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    return np.array(sorted(first.values()), dtype=np.int64)


def count_label_conflicts(keys: Sequence[str], labels: LabelArray) -> int:
    """Number of distinct examples whose copies carry different labels."""
    seen: dict[str, set[int]] = {}
    for key, label in zip(keys, labels, strict=True):
        seen.setdefault(key, set()).add(int(label))
    return sum(len(found) > 1 for found in seen.values())


def check_fractions(fractions: Sequence[float]) -> tuple[float, float, float]:
    """Train, validation and test fractions, checked.

    Raises:
        ConfigError: If they are not three positive numbers with a sum of at most 1.
    """
    parts = tuple(float(f) for f in fractions)
    if len(parts) != 3 or min(parts) <= 0 or sum(parts) > 1 + 1e-9 or not all(map(math.isfinite, parts)):
        raise ConfigError(
            "not split fractions",
            field="task.fractions",
            value=list(fractions),
            allowed="three positive numbers (train, validation, test) with a sum of at most 1",
        )
    return parts


def stratified_split(
    labels: LabelArray, fractions: Sequence[float] = (0.7, 0.15, 0.15), *, seed: int = 0, names: Sequence[str] = ()
) -> Splits:
    """Splits with each class in its proportion, the same for the same labels and seed.

    Args:
        labels: Class indices ``(N,)``, duplicates removed.
        fractions: Of train, validation and test; with a sum below 1 the rest is not used, which
            makes a smaller task of the same kind.
        seed: Of the shuffle within each class.
        names: Class names, for the error.

    Raises:
        ConfigError: If the fractions or the seed are not valid.
        DataError: If a class has too few examples for one in each split.
    """
    train, validation, test = check_fractions(fractions)
    if seed < 0:
        raise ConfigError("not a seed", field="task.split_seed", value=seed, allowed="integers from 0")
    chosen: dict[str, list[IndexArray]] = {split: [] for split in SPLITS}
    uses_everything = train + validation + test > 1 - 1e-9
    classes = range(max(len(names), int(labels.max(initial=-1)) + 1))
    for label in classes:
        members = np.random.default_rng([seed, label]).permutation(np.flatnonzero(labels == label))
        n_validation = max(1, round(validation * len(members)))
        n_test = max(1, round(test * len(members)))
        rest = len(members) - n_validation - n_test
        n_train = rest if uses_everything else min(rest, max(1, round(train * len(members))))
        if n_train < 1:
            raise DataError(
                "too few different examples of a class for train, validation and test",
                field=f"class {names[label] if names else label}",
                value=len(members),
                allowed="at least 3",
            )
        # Test first: a change of the train or validation fraction leaves the test examples alone.
        bounds = np.cumsum([n_test, n_validation, n_train])
        for split, part in zip(("test", "validation", "train"), np.split(members, bounds), strict=False):
            chosen[split].append(part)
    return Splits(**{split: np.sort(np.concatenate(parts)).astype(np.int64) for split, parts in chosen.items()})
