"""YOLOBench (2307.13901; Deeplite/deeplite-torch-zoo, Apache-2.0): accuracy and latency of 572 detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataError, SpaceError
from ..search_spaces.yolobench import YOLOBench, detector
from .csv_files import read_columns
from .data_root import data_path
from .table import ArchitectureTable
from .yolobench_pool import FILE, LATENCY_COLUMNS, NAME_COLUMN, name_features

DATASETS = ("voc", "sku", "wider", "coco")
ACCURACY_COLUMNS = {
    f"{measure}_{data}": f"{upstream}_{data}"
    for data in DATASETS
    for measure, upstream in (("map", "mAP_0.5:0.95"), ("map50", "mAP_0.5"))
}
"""Upstream's column by ours: mean average precision over IoU .5 to .95, and at .5."""


def yolobench(path: str | Path | None = None) -> ArchitectureTable:
    """Columns ``map_<data>`` and ``map50_<data>`` (fractions, 0 to 1) for ``voc``, ``sku`` (SKU-110k), ``wider`` (WIDER
    FACE) and ``coco``, and latency in ms at batch 1 on ``nano_gpu`` (Jetson Nano), ``openvino`` (Intel CPU), ``vim3``
    (Khadas NPU), ``a40_trt`` (TensorRT) and ``pi4_ort`` (Raspberry Pi 4, ONNX Runtime).

    Detectors were trained on COCO at 640 pixels, and for each resolution tuned on the other data sets; the COCO columns
    evaluate the networks of 640 pixels at other sizes.

    Args:
        path: ``merged_results.csv``; default ``yolobench/merged_results.csv`` under ``$GNOMON_DATA``.

    Raises:
        DataError: If the file is missing or damaged, or holds a detector that is none of YOLOBench's.
    """
    file = data_path(FILE, path)
    names = (*ACCURACY_COLUMNS, *LATENCY_COLUMNS)
    upstream = (*ACCURACY_COLUMNS.values(), *LATENCY_COLUMNS.values())
    values, texts = read_columns(file, upstream, (NAME_COLUMN,))
    features, labels = name_features(texts[NAME_COLUMN])
    families = [label.partition("=")[2] for label in labels if label.startswith("family=")]
    space = YOLOBench()
    rows = []
    for name, row in zip(texts[NAME_COLUMN], features, strict=True):
        family = families[int(np.argmax(row[: len(families)]))]
        depth, width, resolution = row[-3:]
        try:
            rows.append(space.genotype(detector(family, round(100 * depth), round(100 * width), int(resolution))))
        except SpaceError as error:
            raise DataError(f"{file}: not a detector of YOLOBench: {error}", field=NAME_COLUMN, value=name) from error
    genotypes = np.stack(rows)
    if len(np.unique(genotypes, axis=0)) != len(genotypes):
        raise DataError(f"{file}: a detector is listed twice", field=NAME_COLUMN, value=len(genotypes))
    note = "milliseconds at batch 1, as published"
    return ArchitectureTable(
        space,
        genotypes,
        dict(zip(names, values.T.copy(), strict=True)),
        f"YOLOBench (Deeplite/deeplite-torch-zoo, Apache-2.0): {file}",
        dict.fromkeys(LATENCY_COLUMNS, note),
        {name: name for name in LATENCY_COLUMNS},
    )
