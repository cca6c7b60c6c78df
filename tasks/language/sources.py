"""Where texts come from, by one name each: ``_target_: gnomon.tasks.language.sources.<class>``."""

from .python_stdlib import PythonStdlib
from .text_files import TextFiles
from .texts import TextData, TextSource

__all__ = ["PythonStdlib", "TextData", "TextFiles", "TextSource"]
