"""A corpus that is wherever Gnomon is: the source and the documentation that come with Python."""

from __future__ import annotations

import importlib
import os
import platform
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import DataError
from .texts import TextData, TextSource, within_limit

LICENCE = "PSF-2.0, with the licences of incorporated software (docs.python.org/3/license.html)"
SUFFIXES = (".py", ".rst", ".md")
"""Of source and documentation. Other text files of an installation are data of tests and of the build."""
NOT_PYTHONS_OWN = ("site-packages", "dist-packages", "__pycache__")
TESTS = ("test", "tests", "idle_test")
TOPICS = "pydoc_data/topics.py"
"""The language reference as a dictionary of texts: read as texts."""


@dataclass(frozen=True)
class PythonStdlib(TextSource):
    """The standard library's source files, and the chapters of the language reference that ``help`` prints.

    The corpus is that of the Python that runs, to which its licence (PSF) applies: another version of Python is another
    corpus, and identities of tasks say so. Files that are not UTF-8 are left out (tests of encodings).

    Args:
        max_bytes: Size of the corpus: a sample of the files; None for all, about 32 MB in Python 3.11.
        tests: Whether Python's own tests belong to it, which are more than half of its source.
    """

    name: ClassVar[str] = "python_stdlib"

    max_bytes: int | None = None
    tests: bool = True

    def load(self) -> TextData:
        root, topics = Path(sysconfig.get_paths()["stdlib"]), _topics()
        sizes = {name: (root / name).stat().st_size for name in self._files(root)}
        sizes |= {name: len(text.encode()) for name, text in topics.items()}
        names = sorted(sizes)
        chosen = [names[i] for i in within_limit(names, [sizes[name] for name in names], self.max_bytes)]
        texts = {name: topics[name] if name in topics else _read(root / name) for name in chosen}
        kept = {name: text for name, text in texts.items() if text is not None}
        if not kept:
            raise DataError("holds no file", field="task.data.max_bytes", value=self.max_bytes, allowed="more, or null")
        source = f"standard library of {platform.python_implementation()} {platform.python_version()}"
        return TextData(tuple(kept), tuple(kept.values()), source, LICENCE, len(texts) - len(kept))

    def _files(self, root: Path) -> list[str]:
        """Paths below the library's folder."""
        found = []
        for folder, folders, files in os.walk(root):
            folders[:] = [name for name in folders if name not in NOT_PYTHONS_OWN and (self.tests or name not in TESTS)]
            place = Path(folder).relative_to(root)
            found += [(place / name).as_posix() for name in files if Path(name).suffix in SUFFIXES]
        if not found:
            raise DataError(f"{root} holds no source files", hint="Install Python's standard library as files.")
        return [name for name in found if name != TOPICS]


def _read(path: Path) -> str | None:
    """A file's text; None if it is not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _topics() -> dict[str, str]:
    """Chapters of the language reference by name; none in an installation without them."""
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ImportError:
        return {}
    return {f"topics/{name}.txt": str(text) for name, text in module.topics.items()}
