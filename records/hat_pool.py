"""HAT's tables of transformer latencies (Wang et al., 2005.14187; mit-han-lab/hardware-aware-transformers)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError
from ..search_spaces.hat_features import PHYSICAL, PUBLISHED, physical_features
from .csv_files import read_columns
from .data_root import data_path
from .pool import DevicePool

FOLDER = "hat"
SUFFIX = "_all.csv"
LATENCIES = {"encoder": "latency_mean_encoder", "decoder": "latency_mean_decoder"}

Part = Literal["total", "encoder", "decoder"]
Features = Literal["published", "physical"]


def hat_pool(path: str | Path | None = None, part: Part = "total", features: Features = "published") -> DevicePool:
    """A feature-only pool: one setting a table (``wmt14ende_gpu_titanxp`` ...), rows of all tables
    below each other, each measured in its own setting only.

    Tables share almost no architectures, and ten averages do not name one, so equal rows of
    features are not merged. Latencies are of one sentence: 30 source and target tokens in the WMT
    tables, 23 in IWSLT's, which is another task with smaller networks.

    Args:
        path: The folder with ``*_all.csv``; default ``hat`` under ``$GNOMON_DATA``.
        part: Latency of encoder and decoder together, as HAT searches for, or of one alone.
        features: HAT's ten as ``published``, or the ``physical`` sums over layers that they imply.

    Raises:
        DataError: If tables are missing or damaged, or ``part`` or ``features`` is unknown.
    """
    if features not in ("published", "physical"):
        raise DataError("no such features", field="features", value=features, allowed=("published", "physical"))
    if part not in ("total", *LATENCIES):
        raise DataError("no such part", field="part", value=part, allowed=("total", *LATENCIES))
    folder = data_path(FOLDER, path)
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if not files:
        raise DataError(f"no tables in {folder}", field="path", value=str(folder), allowed=f"files named *{SUFFIX}")
    parts = list(LATENCIES) if part == "total" else [part]
    tables = [read_columns(file, (*PUBLISHED, *(LATENCIES[name] for name in parts)))[0] for file in files]
    settings = tuple(file.name.removesuffix(SUFFIX) for file in files)
    latencies = np.full((sum(map(len, tables)), len(files)), np.nan)
    start = 0
    for column, table in enumerate(tables):
        latencies[start : start + len(table), column] = table[:, len(PUBLISHED) :].sum(axis=1)
        start += len(table)
    rows = np.concatenate([table[:, : len(PUBLISHED)] for table in tables])
    return DevicePool(
        settings,
        latencies,
        f"HAT (mit-han-lab/hardware-aware-transformers, MIT), {part}: {folder}",
        features=rows if features == "published" else physical_features(rows),
        feature_names=PUBLISHED if features == "published" else PHYSICAL,
    )
