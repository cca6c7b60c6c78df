"""Pairs from a text file of two columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import ConfigError, DataError
from .pairs import PairData, PairSource
from .word_limits import check_word_limits, kept_pairs


@dataclass(frozen=True)
class TsvPairs(PairSource):
    """A UTF-8 file with ``source TAB target`` in each line; further columns and empty lines are ignored.

    Args:
        path: The file.
        languages: Of source and target, for the model's card.
        min_words, max_words: Pairs of other lengths are left out (see :func:`kept_pairs`).
        unit: Empty for text. Otherwise the name of one symbol of a target, for example ``phoneme``:
            sources are read by character, targets are symbols with spaces between.
    """

    name: ClassVar[str] = "tsv"

    path: str | None = None
    languages: tuple[str, str] = ("source", "target")
    min_words: int = 1
    max_words: int | None = None
    unit: str = ""

    def load(self) -> PairData:
        if self.path is None:
            raise ConfigError("needs a file", field="task.data.path", value=None, allowed="lines of source TAB target")
        check_word_limits(self.min_words, self.max_words)
        if len(self.languages) != 2:
            raise ConfigError(
                "not two languages", field="task.data.languages", value=list(self.languages), allowed="source, target"
            )
        path = Path(self.path)
        sources, targets = kept_pairs(_rows(path), self.min_words, self.max_words)
        source, target = self.languages
        return PairData(sources, targets, (str(source), str(target)), f"tsv {path.name}", self.unit)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                columns = line.rstrip("\r\n").split("\t")
                if len(columns) >= 2:
                    yield columns[0], columns[1]
                elif columns[0].strip():
                    raise DataError(f"{path}, line {number}: no tab", value=line[:80], allowed="source TAB target")
    except FileNotFoundError as error:
        raise DataError("no such file", field="task.data.path", value=str(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}", allowed="UTF-8 text") from error
