"""Associative recall: keys with values at the beginning, their values asked for far behind.

After Arora et al. ("Zoology", 2312.04927), with text in between: ``kQxB`` ... text ... ``xBkQ``, where the model has to
write the ``B`` and the ``Q`` behind ``x`` and ``k``. Keys are control characters, which text does not hold, so that a
question is no doubt one; values are capitals, so that chance is 1/26. A model that only sees a window has no way to
know values that are further away than its layers' windows reach together.

Shapes: B sequences, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from string import ascii_uppercase
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import ConfigError, DataError
from ...search_spaces.sequence import BEGIN
from ..torch_state import derived_seed
from .prepared import Ids
from .text_tokenizer import TextTokenizer

KEYS = "".join(map(chr, (*range(1, 9), *range(14, 32))))
"""Characters of keys: the 26 control characters that are no white space."""
GIVEN, TEXT, ANSWER = range(3)
"""What a token of a sequence is."""

ROUNDS = 4
"""Times that the same pairs are asked for in training at most."""

Flags = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Recall:
    """What is asked.

    Args:
        distances: Tokens of text between the last pair and the first question, each scored apart.
        pairs: Of a sequence; all are asked for, in another order.
        key_length: Characters of a key.
        sequences: That are scored at each distance.
        share: Of the windows in training that hold pairs and questions; of their tokens only the text and the
            answers are learned. Distances there are random, see :meth:`RecallSequences.trained`.

    Raises:
        ConfigError: If a value is out of range.
    """

    distances: tuple[int, ...]
    pairs: int = 8
    key_length: int = 1
    sequences: int = 64
    share: float = 0.1

    def __post_init__(self) -> None:
        wanted = self.distances
        _check("distances", list(wanted), bool(wanted) and min(wanted) >= 1, "numbers of tokens from 1")
        _check("distances", list(wanted), len(set(wanted)) == len(wanted), "different numbers")
        _check("key_length", self.key_length, 1 <= self.key_length <= 4, "1 to 4")
        most = 26**self.key_length
        _check("pairs", self.pairs, 1 <= self.pairs <= most, f"1 to {most}, as many as there are keys")
        _check("sequences", self.sequences, self.sequences >= 1, "from 1")
        _check("share", self.share, 0 <= self.share <= 1, "0 to 1")

    @classmethod
    def of(cls, settings: Mapping[str, Any] | Recall | None) -> Recall | None:
        """Settings from a config node; None for no such test.

        Raises:
            ConfigError: If a key is unknown or missing, or a value of the wrong type or out of range.
        """
        if settings is None or isinstance(settings, Recall):
            return settings
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(settings) - set(known))
        if unknown or "distances" not in settings:
            raise ConfigError(
                "unknown key" if unknown else "distances are missing",
                field="task.recall",
                value=unknown or dict(settings),
                allowed=known,
            )
        try:
            distances = tuple(int(distance) for distance in settings["distances"])
            return cls(**{**settings, "distances": distances})
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"wrong type: {error}", field="task.recall", value=dict(settings), allowed=known
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON."""
        return {**asdict(self), "distances": list(self.distances)}

    def block(self, pairs: int) -> int:
        """Tokens of so many pairs or questions."""
        return pairs * (self.key_length + 1)

    def length(self, distance: int) -> int:
        """Tokens of a scored sequence, its last answer included."""
        return 1 + 2 * self.block(self.pairs) + distance

    @property
    def longest(self) -> int:
        """Tokens of the longest scored sequence."""
        return self.length(max(self.distances))


class RecallSequences:
    """Makes sequences of pairs, text and questions.

    Args:
        recall: What is asked.
        tokenizer: Each character becomes the token that it is by itself.
    """

    def __init__(self, recall: Recall, tokenizer: TextTokenizer) -> None:
        self.recall = recall
        self._token = {c: tokenizer.encode(c)[0] for c in f"{KEYS}{ascii_uppercase}"}

    @staticmethod
    def check(text: Ids, distances: Sequence[int]) -> None:
        """Raises DataError if there is not enough text for one of these distances."""
        for distance in distances:
            if len(text) <= distance:
                raise DataError(
                    "too little text", field="task.recall.distances", value=distance, allowed=f"below {len(text)}"
                )

    def scored(self, text: Ids, distance: int, seed: int) -> tuple[Rows, Flags]:
        """Sequences ``(sequences, length)`` and which of their tokens are answers; always the same for a seed.

        Args:
            text: A stream from which what lies in between is taken.
            distance: Tokens between the last pair and the first question.
            seed: Of all that is random.

        Raises:
            DataError: If there is not enough text.
        """
        self.check(text, [distance])
        rng = np.random.default_rng(derived_seed(seed, distance, self.recall.pairs))
        rows = []
        for _ in range(self.recall.sequences):
            pairs = self._drawn(self.recall.pairs, rng)
            rows.append([BEGIN, *self._block(pairs), *_text(text, distance, rng), *self._block(pairs, rng)])
        before = 1 + self.recall.block(self.recall.pairs) + distance
        kinds = np.array([GIVEN] * before + self._question_kinds(self.recall.pairs))
        return np.array(rows, dtype=np.int64), np.tile(kinds == ANSWER, (len(rows), 1))

    def trained(self, text: Ids, length: int, rng: np.random.Generator) -> tuple[Rows, Flags]:
        """One window ``(length,)`` full of such sequences, and which of its tokens are to be learned.

        Pairs are asked for several times, half of the times at once, so that there is something to learn from in every
        part of a window; other distances are uniform in their logarithm, so that what is near is learned first.
        """
        ids: list[int] = []
        kinds: list[int] = []
        while length - len(ids) > 2 * self.recall.block(self.recall.pairs):
            pairs = self._drawn(int(rng.integers(1, self.recall.pairs + 1)), rng)
            ids, kinds = ids + self._block(pairs), kinds + [GIVEN] * self.recall.block(len(pairs))
            for _ in range(int(rng.integers(1, ROUNDS + 1))):
                room = length - len(ids) - self.recall.block(len(pairs))
                if room < 1:
                    break
                distance = int(np.exp(rng.uniform(0.0, np.log(room)))) if rng.integers(2) else 0
                ids += _text(text, distance, rng) + self._block(pairs, rng)
                kinds += [TEXT] * distance + self._question_kinds(len(pairs))
        ids += _text(text, length - len(ids), rng)
        kinds += [TEXT] * (length - len(kinds))
        return np.array(ids, dtype=np.int64), np.array([kind != GIVEN for kind in kinds])

    def _drawn(self, count: int, rng: np.random.Generator) -> list[list[int]]:
        """Tokens of so many keys, all different, with their values."""
        numbers = rng.choice(26**self.recall.key_length, size=count, replace=False).tolist()
        values = rng.integers(0, 26, size=count).tolist()
        return [self._pair(number, value) for number, value in zip(numbers, values, strict=True)]

    def _block(self, pairs: Sequence[list[int]], rng: np.random.Generator | None = None) -> list[int]:
        """All pairs, in another order if there is a generator."""
        order = range(len(pairs)) if rng is None else rng.permutation(len(pairs)).tolist()
        return [token for i in order for token in pairs[i]]

    def _question_kinds(self, pairs: int) -> list[int]:
        return ([GIVEN] * self.recall.key_length + [ANSWER]) * pairs

    def _pair(self, number: int, value: int) -> list[int]:
        """Tokens of a key and its value."""
        key = "".join(KEYS[number // 26**i % 26] for i in range(self.recall.key_length))
        return [self._token[c] for c in f"{key}{ascii_uppercase[value]}"]


def _text(text: Ids, length: int, rng: np.random.Generator) -> list[int]:
    start = int(rng.integers(0, len(text) - length + 1))
    found: list[int] = text[start : start + length].tolist()
    return found


def _check(name: str, value: Any, valid: bool, allowed: str) -> None:
    if not valid:
        raise ConfigError("out of range", field=f"task.recall.{name}", value=value, allowed=allowed)
