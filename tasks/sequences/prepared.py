"""Pairs ready for training: copies out, splits made, tokenizers trained on the train split, ids made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ..splits import Splits
from .pairs import PairData
from .splitting import near_duplicate_key, split_by_hash
from .tokenizer_pair import TokenizerPair


@dataclass(frozen=True)
class PreparedPairs:
    """Distinct sources with their splits and tokens.

    Args:
        data: One pair a source, near duplicates out; the target is the first that was given.
        references: All targets that were given for each source.
        splits: Which pair belongs where; too long ones are left out of ``train``, and cut elsewhere.
        tokenizers: Trained on the train split.
        source_ids, target_ids: Of each pair of the train split and the scored splits, by its number;
            both ended by ``END`` and of at most ``max_tokens`` tokens.
        data_hash: Of all pairs as they were loaded.
        near_duplicates: Pairs that were left out, because they nearly repeat another's source.
        too_long: Pairs of the train split that were left out.
    """

    data: PairData
    references: tuple[tuple[str, ...], ...]
    splits: Splits
    tokenizers: TokenizerPair
    source_ids: dict[int, list[int]]
    target_ids: dict[int, list[int]]
    data_hash: str
    near_duplicates: int
    too_long: int

    def sources(self, split: str) -> list[list[int]]:
        """Source ids of a split, in its order."""
        return [self.source_ids[int(i)] for i in self.splits[split]]

    def targets(self, split: str) -> list[list[int]]:
        """Target ids of a split, in its order."""
        return [self.target_ids[int(i)] for i in self.splits[split]]

    def references_of(self, split: str) -> list[tuple[str, ...]]:
        """All right answers of a split, in its order."""
        return [self.references[int(i)] for i in self.splits[split]]

    def keys(self, split: str) -> list[str]:
        """A hash of each source of a split."""
        return [blake2b(self.data.sources[i].encode(), digest_size=16).hexdigest() for i in self.splits[split]]


def prepare(
    raw: PairData,
    fractions: Sequence[float],
    seed: int,
    *,
    vocabulary_size: int,
    shared_vocabulary: bool,
    max_tokens: int,
) -> PreparedPairs:
    """Removes copies and near duplicates, splits, trains tokenizers on train, and makes ids.

    Raises:
        ConfigError: If fractions, seed or sizes are not valid.
        DataError: If a split is empty.
    """
    data, references, keys = _distinct(raw)
    splits = split_by_hash(keys, fractions, seed)
    tokenizers = TokenizerPair.trained(
        data, splits.train.tolist(), vocabulary_size=vocabulary_size, shared=shared_vocabulary, max_tokens=max_tokens
    )
    used = np.sort(np.concatenate([splits.train, splits.validation, splits.test])).tolist()
    source_ids = dict(zip(used, tokenizers.source.encode([data.sources[i] for i in used]), strict=True))
    target_ids = dict(zip(used, tokenizers.target.encode([data.targets[i] for i in used]), strict=True))
    fits = _lengths(splits.train, source_ids, target_ids) <= max_tokens
    if not fits.any():
        raise DataError("every pair is too long", field="task.max_tokens", value=max_tokens)
    for i in np.concatenate([splits.validation, splits.test]).tolist():
        source_ids[i], target_ids[i] = tokenizers.cut(source_ids[i]), tokenizers.cut(target_ids[i])
    return PreparedPairs(
        data=data,
        references=references,
        splits=Splits(splits.train[fits], splits.validation, splits.test),
        tokenizers=tokenizers,
        source_ids=source_ids,
        target_ids=target_ids,
        data_hash=raw.content_hash(),
        near_duplicates=len(set(raw.sources)) - len(data),
        too_long=int((~fits).sum()),
    )


def _distinct(raw: PairData) -> tuple[PairData, tuple[tuple[str, ...], ...], list[str]]:
    """One pair a key in the order of first occurrence, all targets of its source, and the keys."""
    first: dict[str, str] = {}
    targets: dict[str, list[str]] = {}
    for source, target in zip(raw.sources, raw.targets, strict=True):
        # Words are short: `can't` and `cant` are two, not nearly one.
        kept = first.setdefault(source if raw.unit else near_duplicate_key(source), source)
        if kept == source and target not in targets.setdefault(source, []):
            targets[source].append(target)
    references = tuple(tuple(found) for found in targets.values())
    data = PairData(tuple(targets), tuple(found[0] for found in references), raw.languages, raw.source, raw.unit)
    return data, references, list(first)


def _lengths(
    chosen: npt.NDArray[np.int64], source_ids: dict[int, list[int]], target_ids: dict[int, list[int]]
) -> npt.NDArray[np.int64]:
    """Tokens of the longer side of each chosen pair."""
    return np.array([max(len(source_ids[i]), len(target_ids[i])) for i in chosen.tolist()], dtype=np.int64)
