"""Reads ``.pt`` files of plain lists and dicts, as HELP publishes them, without running code."""

from __future__ import annotations

import pickle
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

    # numpy 2 moved the module that older files name.
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    allowed: list[Any] = [*names, np.dtype, np.dtypes.Float64DType, np.dtypes.Int64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise DataError(f"cannot read {path}: not a file of plain lists, dicts, numbers and tensors") from error
    except Exception as error:  # zip files, the file system and torch raise their own
        reason = str(error).strip().splitlines()
        raise DataError(f"cannot read {path}: {reason[0] if reason else type(error).__name__}") from error
