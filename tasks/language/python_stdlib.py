"""A corpus that is wherever Gnomon is: the source and the documentation that come with Python."""

from __future__ import annotations

import importlib
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
        root = Path(sysconfig.get_paths()["stdlib"])
        texts, unreadable = {}, 0
        for path in self._files(root):
            try:
                texts[path.relative_to(root).as_posix()] = path.read_bytes().decode("utf-8")
            except UnicodeDecodeError:
                unreadable += 1
            except OSError as error:
                raise DataError(f"cannot read {path}: {error}") from error
        texts |= _topics()
        names = sorted(texts)
        chosen = within_limit(names, [len(texts[name].encode()) for name in names], self.max_bytes)
        if not chosen:
            raise DataError("holds no file", field="task.data.max_bytes", value=self.max_bytes, allowed="more, or null")
        kept = tuple(names[i] for i in chosen)
        source = f"standard library of {platform.python_implementation()} {platform.python_version()}"
        return TextData(kept, tuple(texts[name] for name in kept), source, LICENCE, unreadable)

    def _files(self, root: Path) -> list[Path]:
        found = []
        for path in root.rglob("*"):
            parts = path.relative_to(root).parts
            is_ours = path.suffix in SUFFIXES and not any(part in NOT_PYTHONS_OWN for part in parts)
            is_test = any(part in ("test", "tests", "idle_test") for part in parts[:-1])
            if is_ours and (self.tests or not is_test) and "/".join(parts) != TOPICS and path.is_file():
                found.append(path)
        if not found:
            raise DataError(f"{root} holds no source files", hint="Install Python's standard library as files.")
        return found


def _topics() -> dict[str, str]:
    """Chapters of the language reference by name; none in an installation without them."""
    try:
        module = importlib.import_module("pydoc_data.topics")
    except ImportError:
        return {}
    return {f"topics/{name}.txt": str(text) for name, text in module.topics.items()}
