"""Which split a pair belongs to: decided by a hash of its source, so that no split shares a source.

More data later, or another order, leave every pair where it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, DataError
from ..splits import Splits, check_fractions

NOT_WORDS = re.compile(r"[\W_]+")
DIGITS = re.compile(r"\d+")


def near_duplicate_key(text: str) -> str:
    """What sentences share that a test must not hold if a model has learned from one of them.

    Lower case, Unicode's compatibility forms, words only, every number the same: ``_Delete 3 files...``
    and ``Delete 5 Files`` are one. Text without any word is its own key.
    """
    # Marks of access keys stand within words: `E&xit`, `_Open`.
    plain = unicodedata.normalize("NFKC", text).casefold().replace("&", "").replace("_", "")
    return " ".join(NOT_WORDS.sub(" ", DIGITS.sub("0", plain)).split()) or text


def split_by_hash(keys: Sequence[str], fractions: Sequence[float], seed: int) -> Splits:
    """Splits of distinct keys, each where its own hash puts it; sizes are the fractions' up to chance.

    Args:
        keys: One an example, all different.
        fractions: Of train, validation and test; with a sum below 1 the rest is not used.
        seed: Another seed, another split.

    Raises:
        ConfigError: If fractions or seed are not valid.
        DataError: If a split is empty.
    """
    train, validation, test = check_fractions(fractions)
    if seed < 0:
        raise ConfigError("not a seed", field="task.split_seed", value=seed, allowed="integers from 0")
    places = _places(keys, seed)
    # Test first: a change of the train or validation fraction leaves the test examples alone.
    bounds = np.cumsum([test, validation, train])
    if bounds[-1] > 1 - 1e-9:
        bounds[-1] = 2.0  # no example is lost to rounding
    chosen = np.searchsorted(bounds, places, side="right")
    test_part, validation_part, train_part = (np.flatnonzero(chosen == i).astype(np.int64) for i in range(3))
    splits = Splits(train_part, validation_part, test_part)
    if min(splits.sizes.values()) == 0:
        raise DataError("too few different examples for train, validation and test", field="pairs", value=len(keys))
    return splits


def _places(keys: Sequence[str], seed: int) -> npt.NDArray[np.float64]:
    """Of each key in 0..1, uniform over keys."""
    salt = f"{seed}\x00"
    digests = b"".join(blake2b((salt + key).encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=">u8").astype(np.float64) / 2.0**64
