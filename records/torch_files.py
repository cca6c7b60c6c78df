"""Reads ``.pt`` files of plain lists and dicts, as HELP publishes them, without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError


def load_plain(path: Path) -> Any:
    """The object in a ``.pt`` file of built-in types, tensors and numpy scalars.

    Raises:
        DataError: If the file is damaged or holds anything else.
    """
    import torch

    # Old numpy pickles name the module that numpy 2 moved.
    scalar = (np._core.multiarray.scalar, "numpy.core.multiarray.scalar")
    allowed: list[Any] = [scalar, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch raise their own
        reason = str(error).strip().splitlines()
        raise DataError(f"cannot read {path}: {reason[0] if reason else type(error).__name__}") from error
