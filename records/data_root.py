"""Where published tables are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError

VARIABLE = "GNOMON_DATA"


def data_root() -> Path:
    """``$GNOMON_DATA``, or ``../shared/data`` beside the project's checkout. It may not exist."""
    root = os.environ.get(VARIABLE)
    return Path(root).expanduser() if root else Path(__file__).resolve().parents[2] / "shared" / "data"


def data_path(name: str, path: Path | str | None = None) -> Path:
    """``path`` as given, else ``name`` under :func:`data_root`.

    Raises:
        DataError: If it does not exist, naming the path and what to set.
    """
    found = Path(path).expanduser() if path is not None else data_root() / name
    if not found.exists():
        raise DataError(
            f"no such data: {found}",
            field="path" if path is not None else VARIABLE,
            value=str(path) if path is not None else os.environ.get(VARIABLE),
            hint=f"Set {VARIABLE} to the folder that holds {name}, or give its path.",
        )
    return found
