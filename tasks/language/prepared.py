"""A corpus ready for training: copies out, splits made by document, tokenizer trained on the train split, ids made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...search_spaces.sequence import BEGIN, END
from ..sequences.splitting import split_by_hash
from ..splits import SPLITS, Splits
from .near_duplicates import first_of_near_duplicates
from .text_tokenizer import TextTokenizer
from .texts import TextData

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True)
class PreparedTexts:
    """Distinct documents with their splits and tokens.

    Args:
        data: Where they come from.
        hashes: Of each kept document's text.
        splits: Which document belongs where.
        tokenizer: Trained on the train split.
        documents: Ids of each kept document ``(tokens,)``, between ``BEGIN`` and ``END``.
        data_hash: Of all documents as they were loaded.
        near_duplicates: Documents that were left out, because they nearly repeat another, or are empty.
    """

    data: TextData
    hashes: tuple[str, ...]
    splits: Splits
    tokenizer: TextTokenizer
    documents: tuple[Ids, ...]
    data_hash: str
    near_duplicates: int

    def of_split(self, split: str) -> list[Ids]:
        """Documents of a split, in its order."""
        return [self.documents[int(i)] for i in self.splits[split]]

    def stream(self, split: str) -> Ids:
        """All documents of a split, one after the other ``(tokens,)``."""
        return np.concatenate(self.of_split(split))

    def keys(self, split: str) -> list[str]:
        """A hash of each document of a split."""
        return [self.hashes[int(i)] for i in self.splits[split]]

    def split_bytes(self) -> dict[str, int]:
        """Bytes of text of each split."""
        lengths = self.tokenizer.byte_lengths
        return {split: sum(int(lengths[ids].sum()) for ids in self.of_split(split)) for split in SPLITS}


def prepare(raw: TextData, fractions: Sequence[float], seed: int, *, vocabulary_size: int | None) -> PreparedTexts:
    """Removes near duplicates, splits by a hash of the text, trains the tokenizer on train, and makes ids.

    A document stays in its split whatever else the corpus holds, and whatever it is called.

    Raises:
        ConfigError: If fractions, seed or sizes are not valid.
        DataError: If a split is empty.
    """
    full = [i for i, text in enumerate(raw.texts) if text.strip()]
    kept = [full[i] for i in first_of_near_duplicates([raw.texts[i] for i in full])]
    texts = [raw.texts[i] for i in kept]
    hashes = [blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    try:
        splits = split_by_hash(hashes, fractions, seed)
    except DataError as error:
        raise DataError(
            "too few different files for train, validation and test",
            field="files",
            value=len(kept),
            allowed="some tens; a file is in one split as a whole",
            hint="Cut a long text into several files, for example by chapters.",
        ) from error
    tokenizer = TextTokenizer.trained((texts[i] for i in splits.train.tolist()), vocabulary_size)
    return PreparedTexts(
        data=raw,
        hashes=tuple(hashes),
        splits=splits,
        tokenizer=tokenizer,
        documents=tuple(_document(text, tokenizer) for text in texts),
        data_hash=raw.content_hash(),
        near_duplicates=len(raw) - len(kept),
    )


def _document(text: str, tokenizer: TextTokenizer) -> Ids:
    return np.concatenate([[BEGIN], tokenizer.encode_array(text), [END]]).astype(np.int32)
