"""Finished trainings and searches that are committed: ``benchmarks/kept/NAME.jsonl``, a JSON object a line.

The largest benchmarks take longer than a machine may be had for. With ``--kept`` they go on from what earlier runs
finished, on this machine or another, and add what they finish themselves. Latencies are not kept: those that are
compared are measured together, in one session.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from benchmarks._common import ROOT
from gnomon.conf.compose import compose
from gnomon.errors import SchemaError
from gnomon.schema import Record, check_schema
from gnomon.search.setup import search_identity

if TYPE_CHECKING:
    from benchmarks._trainings import Training

FOLDER = ROOT / "benchmarks" / "kept"
SCHEMA = "gnomon.benchmark.kept/1"


class Kept:
    """What is in a file of finished work, and adds to it.

    Args:
        path: Made when the first result is kept.

    Raises:
        SchemaError: If a line is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lines: dict[str, Any] = dict(self._read())

    def training(self, training: Training) -> Any | None:
        """Its result, or None."""
        found = self._lines.get(training.name())
        return None if found is None else training.RESULT.from_dict(found)

    def keep(self, training: Training, result: Record) -> None:
        """Adds a finished training."""
        self._add(training.name(), result.to_dict())

    def search(self, name: str, words: Sequence[str], make: Callable[[], Sequence[str]]) -> list[str]:
        """Keys of the architectures that a search found: from the file, or ``make``'s, then kept.

        Args:
            name: Of the search.
            words: Of ``gnomon search``. A search with other words is another one, and so is one with the same words
                after the configs that they name have changed.
            make: Searches.
        """
        key = json.dumps([name, *words, _digest(words)])
        if key not in self._lines:
            self._add(key, list(make()))
        return list(self._lines[key])

    def _read(self) -> Sequence[tuple[str, Any]]:
        if not self.path.is_file():
            return []
        lines = []
        for number, text in enumerate(self.path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                line = json.loads(text)
                check_schema(line, SCHEMA, source=f"{self.path}, line {number}")
                lines.append((line["of"], line["found"]))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise SchemaError(f"cannot read {self.path}, line {number}: {error}", hint="Delete it.") from error
        return lines

    def _add(self, of: str, found: Any) -> None:
        """In one write, so that runners beside each other do not mix their lines."""
        if of in self._lines:
            return
        self._lines[of] = found
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"schema": SCHEMA, "of": of, "found": found}, sort_keys=True)
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _digest(words: Sequence[str]) -> str:
    """Of the settings that decide what a search finds."""
    config: Any = OmegaConf.to_container(compose("search", words))
    settings = {
        **search_identity(config),
        "finalise": config["finalise"],
        "evaluations": config["study"]["evaluations"],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


class NothingKept(Kept):
    """Without ``--kept``: everything is done here."""

    def __init__(self) -> None:
        self._lines = {}

    def _add(self, of: str, found: Any) -> None:
        self._lines[of] = found


def add_argument(parser: argparse.ArgumentParser, name: str) -> None:
    """``--kept [FILE]``."""
    parser.add_argument(
        "--kept",
        metavar="FILE",
        nargs="?",
        type=Path,
        const=FOLDER / f"{name}.jsonl",
        help="go on from, and add to, finished work in FILE (without FILE: the committed benchmarks/kept/NAME.jsonl)",
    )


def kept_of(options: argparse.Namespace) -> Kept:
    """What ``--kept`` names; a quick run keeps nothing."""
    return NothingKept() if options.kept is None or options.quick else Kept(options.kept)
