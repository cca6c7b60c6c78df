"""Documents in memory, and the contract of what loads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import ClassVar

from ...errors import ConfigError, DataError


@dataclass(frozen=True)
class TextData:
    """Every document of a corpus, before copies are removed and splits are made.

    Args:
        names: Of the documents, for example paths of files within their folder; all different.
        texts: Their contents.
        source: Where they come from, for provenance.
        licence: Under which they may be used, as far as known.
        unreadable: Files that were left out because they are not UTF-8 text.

    Raises:
        DataError: If there are no documents.
    """

    names: tuple[str, ...]
    texts: tuple[str, ...]
    source: str
    licence: str = "not known"
    unreadable: int = 0

    def __post_init__(self) -> None:
        if not self.texts:
            raise DataError(f"{self.source}: no documents")

    def __len__(self) -> int:
        return len(self.texts)

    def content_hash(self) -> str:
        """SHA-256 over all names and texts in their order: equal exactly if the data are equal."""
        digest = sha256()
        for name, text in zip(self.names, self.texts, strict=True):
            digest.update(f"{name}\x00{len(text)}\x00{text}".encode())
        return digest.hexdigest()


class TextSource(ABC):
    """What loads :class:`TextData`: a frozen dataclass of JSON arguments, named by ``_target_``.

    Making one is free; ``load`` reads.
    """

    name: ClassVar[str]
    """Short name, used in study names."""

    @abstractmethod
    def load(self) -> TextData:
        """The whole corpus.

        Raises:
            DataError: If it is missing or malformed.
        """


def within_limit(names: Sequence[str], sizes: Sequence[int], max_bytes: int | None) -> list[int]:
    """Numbers of the documents, in their order, that a corpus of at most ``max_bytes`` holds.

    They are taken in the order of hashes of their names: a sample of all, to which a larger limit only adds.

    Raises:
        ConfigError: If the limit is not positive.
    """
    if max_bytes is None:
        return list(range(len(names)))
    if max_bytes < 1:
        raise ConfigError("out of range", field="task.data.max_bytes", value=max_bytes, allowed="from 1, or null")
    order = sorted(range(len(names)), key=lambda i: blake2b(names[i].encode(), digest_size=8).digest())
    taken, total = [], 0
    for i in order:
        total += sizes[i]
        if total > max_bytes:
            break
        taken.append(i)
    return sorted(taken)
