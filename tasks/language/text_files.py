"""A user's own texts: every file of a folder, or of a pattern."""

from __future__ import annotations

import glob
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ...errors import ConfigError, DataError
from .texts import TextData, TextSource, within_limit


@dataclass(frozen=True)
class TextFiles(TextSource):
    """UTF-8 files, each a document.

    Args:
        path: A folder, of which every file below is read that fits ``pattern``; or a pattern of files, such as
            ``books/**/*.txt``. Hidden files and folders are left out.
        pattern: Of files within a folder.
        max_bytes: Size of the corpus: a sample of the files; None for all.
        licence: Under which the texts may be used, for the model's card.

    Files are read in the order of their names, so that equal files are equal data.
    """

    name: ClassVar[str] = "text_files"

    path: str | None = None
    pattern: str = "**/*"
    max_bytes: int | None = None
    licence: str = "not known"

    def load(self) -> TextData:
        if self.path is None:
            raise ConfigError(
                "needs files", field="task.data.path", value=None, allowed="a folder, or a pattern such as books/*.txt"
            )
        root, paths = self._files(Path(self.path))
        if not paths:
            raise DataError(
                "no such files", field="task.data.path", value=self.path, allowed=f"files of {self.pattern}"
            )
        names = [path.relative_to(root).as_posix() for path in paths]
        chosen = within_limit(names, [path.stat().st_size for path in paths], self.max_bytes)
        if not chosen:
            raise DataError("holds no file", field="task.data.max_bytes", value=self.max_bytes, allowed="more, or null")
        texts = tuple(_read(paths[i]) for i in chosen)
        return TextData(tuple(names[i] for i in chosen), texts, f"files of {self.path}", self.licence)

    def _files(self, path: Path) -> tuple[Path, list[Path]]:
        """What names are relative to, and the files in the order of their names."""
        if path.is_dir():
            root, found = path, path.glob(self.pattern)
        else:
            # The part without wildcards, so that a corpus keeps its names wherever it lies.
            parts = path.parts
            fixed = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
            root = Path(*parts[:fixed])
            found = (Path(name) for name in glob.glob(str(path), recursive=True))
        files = {file for file in found if file.is_file()}
        visible = [f for f in files if not any(part.startswith(".") for part in f.relative_to(root).parts)]
        return root, sorted(visible, key=lambda file: file.relative_to(root).as_posix())


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {error}",
            allowed="UTF-8 text",
            hint="Leave other files out with task.data.pattern, for example '**/*.txt'.",
        ) from error
