"""Pairs of sequences in memory, and the contract of what loads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

from ...errors import DataError


@dataclass(frozen=True)
class PairData:
    """Every pair of a data set, before copies are removed and splits are made.

    Args:
        sources: What is read; one that occurs again has several right answers.
        targets: What is to be written, as many.
        languages: Of source and target, for example ``("en", "de")``.
        source: Where the data come from, for provenance.
        unit: Empty for text. Otherwise what one symbol of a target is, for example ``phoneme``:
            sources are then read by character, and targets are symbols with spaces between.

    Raises:
        DataError: If there are no pairs, or not as many sources as targets.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    languages: tuple[str, str]
    source: str
    unit: str = ""

    def __post_init__(self) -> None:
        if len(self.sources) != len(self.targets):
            raise DataError(
                f"{self.source}: one target per source is needed",
                field="targets",
                value=len(self.targets),
                allowed=str(len(self.sources)),
            )
        if not self.sources:
            raise DataError(f"{self.source}: no pairs of sentences")

    def __len__(self) -> int:
        return len(self.sources)

    def content_hash(self) -> str:
        """SHA-256 over all pairs in their order: equal exactly if the data are equal."""
        digest = sha256(repr((self.languages, self.unit)).encode())
        for source, target in zip(self.sources, self.targets, strict=True):
            digest.update(f"{source}\x00{target}\x01".encode())
        return digest.hexdigest()


class PairSource(ABC):
    """What loads :class:`PairData`: a frozen dataclass of JSON arguments, named by ``_target_``.

    Making one is free; ``load`` reads.
    """

    name: ClassVar[str]
    """Short name, used in study names."""
    unit: str = ""
    """As of the data that it loads; known before they are."""

    @abstractmethod
    def load(self) -> PairData:
        """The whole data set.

        Raises:
            DataError: If it is missing or malformed.
            DependencyError: If a package is missing; the hint installs it.
        """
