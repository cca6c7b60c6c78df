"""Reads numeric columns of CSV files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError


def read_columns(
    path: Path, numbers: Sequence[str], texts: Sequence[str] = ()
) -> tuple[npt.NDArray[np.float64], dict[str, list[str]]]:
    """Numeric columns ``(N, len(numbers))``, NaN where a field is empty, and text columns by name.

    Raises:
        DataError: If the file cannot be read, lacks a column or holds no numbers where it should.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            missing = sorted({*numbers, *texts} - set(reader.fieldnames or ()))
            if missing:
                raise DataError(f"{path} lacks columns", field="columns", value=missing, allowed=reader.fieldnames)
            rows = list(reader)
        values = [[float("nan" if row[name] == "" else row[name]) for name in numbers] for row in rows]
        columns = {name: [row[name] or "" for row in rows] for name in texts}
    except (OSError, UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise DataError(f"cannot read {path} as CSV: {error}") from error
    if not rows:
        raise DataError(f"{path} holds no rows", field="rows", value=0)
    return np.array(values, dtype=np.float64), columns
