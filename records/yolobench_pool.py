"""YOLOBench: latencies of 572 object detectors (Deeplite/deeplite-torch-zoo, Apache-2.0)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from .csv_files import read_columns
from .data_root import data_path
from .pool import DevicePool

FILE = "yolobench/merged_results.csv"
NAME_COLUMN = "model_name"
LATENCY_COLUMNS = {
    "nano_gpu": "nano_gpu_latency",
    "openvino": "openvino_latency",
    "vim3": "vim3_latency",
    "a40_trt": "a40_trt_latency",
    "pi4_ort": "pi4_ort_latency",
}
"""Upstream's column in ms by setting."""
SIZES = {"n": (1 / 3, 0.25), "s": (1 / 3, 0.5), "m": (2 / 3, 0.75), "l": (1.0, 1.0)}
"""(depth, width) that the letter of a model stands for, as in YOLOv5 and YOLOv8."""
DEPTHS = {"33": 1 / 3, "6": 0.6, "67": 2 / 3, "1": 1.0}
WIDTHS = {"25": 0.25, "5": 0.5, "75": 0.75, "1": 1.0}

_NAME = re.compile(r"yolo(?P<version>\d)(?:(?P<variant>[sml])-)?(?:(?P<size>[nsml])|d(?P<d>\d+)w(?P<w>\d+))_(?P<r>\d+)")


def yolobench_pool(path: str | Path | None = None) -> DevicePool:
    """A feature-only pool: 572 detectors in five settings, features read from their names:
    ``family=...`` one-hot (YOLO version, for v6 with its variant), multipliers of ``depth`` and
    ``width``, and ``resolution`` in pixels.

    Args:
        path: ``merged_results.csv``; default ``yolobench/merged_results.csv`` under ``$GNOMON_DATA``.

    Raises:
        DataError: If the file is missing or damaged, or a model's name is not understood.
    """
    file = data_path(FILE, path)
    latencies, texts = read_columns(file, tuple(LATENCY_COLUMNS.values()), (NAME_COLUMN,))
    features, names = name_features(texts[NAME_COLUMN])
    return DevicePool(
        tuple(LATENCY_COLUMNS),
        latencies,
        f"YOLOBench (Deeplite/deeplite-torch-zoo, Apache-2.0): {file}",
        features=features,
        feature_names=names,
    )


def name_features(models: Sequence[str]) -> tuple[npt.NDArray[np.float64], tuple[str, ...]]:
    """Features ``(N, F)`` of model names such as ``yolo5d67w25_256`` or ``yolo8s_320``, and their names.

    Raises:
        DataError: If a name is not understood.
    """
    families, numbers = [], []
    for model in models:
        match = _NAME.fullmatch(model)
        try:
            if match is None:
                raise KeyError(model)
            depth, width = SIZES[match["size"]] if match["size"] else (DEPTHS[match["d"]], WIDTHS[match["w"]])
        except KeyError as error:
            raise DataError(
                "not a model of YOLOBench", field=NAME_COLUMN, value=model, allowed="names such as yolo5d67w25_256"
            ) from error
        families.append(f"yolo{match['version']}{match['variant'] or ''}")
        numbers.append((depth, width, float(match["r"])))
    known = sorted(set(families))
    one_hot = np.array([[family == name for name in known] for family in families], dtype=np.float64)
    names = (*(f"family={name}" for name in known), "depth", "width", "resolution")
    return np.concatenate([one_hot, np.array(numbers)], axis=1), names
