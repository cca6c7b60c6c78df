"""Published latencies and accuracies of NAS-Bench-201's 15,625 cells.

HELP (Lee et al., 2106.08630; github.com/HayeonLee/HELP) measured all cells on many devices,
HW-NAS-Bench-360 (roldebijvank/HW-NAS-Bench-360) some of them on others, with accuracies of all.
Both number cells as NAS-Bench-201 does; HELP's ``str_arch2idx.pt`` says which number is which cell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, DependencyError
from ..search_spaces import GENE_DTYPE, Genotypes
from ..search_spaces.nasbench201 import NASBench201
from .data_root import data_path
from .table import ArchitectureTable, FloatArray
from .torch_files import load_plain

HELP_FOLDER = "help/nasbench201"
INDEX_FILE = "str_arch2idx.pt"
PARQUET = "hwnas360/dataset.parquet"
PARQUET_COLUMNS = (
    "arch_idx", "rep_arch_idx", "device", "framework", "task", "lat_ms_median", "energy_mj", "accuracy", "status",
)  # fmt: skip

_EDGE = r"(\w+)~"
_CELL = re.compile(rf"\|{_EDGE}0\|\+\|{_EDGE}0\|{_EDGE}1\|\+\|{_EDGE}0\|{_EDGE}1\|{_EDGE}2\|")


def help_nasbench201(path: str | Path | None = None, devices: Sequence[str] | None = None) -> ArchitectureTable:
    """HELP's latencies: one column in ms a device, named as the device (``raspi4``, ``fpga`` ...).

    Values are upstream's own. Some devices removed dead code: a cell without a path from input to
    output takes 0.01 ms on ``raspi4`` and ``pixel3``.

    Args:
        path: The folder with ``str_arch2idx.pt`` and ``latency/``; default ``help/nasbench201``
            under ``$GNOMON_DATA``.
        devices: Columns to read; default all.

    Raises:
        DataError: If files are missing or damaged, or a device is unknown.
    """
    folder = data_path(HELP_FOLDER, path)
    files = {file.stem: file for file in sorted((folder / "latency").glob("*.pt"))}
    if not files:
        raise DataError(f"no latencies in {folder / 'latency'}", field="path", value=str(folder))
    names = list(files) if devices is None else list(devices)
    unknown = sorted(set(names) - set(files))
    if unknown:
        raise DataError("HELP did not measure these", field="devices", value=unknown, allowed=files)
    space = NASBench201()
    genotypes = cells(read_index(folder / INDEX_FILE), space)
    columns, notes = {}, {}
    for name in names:
        columns[name], note = latency_column(load_plain(files[name]), len(genotypes), files[name])
        if note:
            notes[name] = note
    source = f"HELP (HayeonLee/HELP, MIT): {folder}"
    return ArchitectureTable(space, genotypes, columns, source, notes, {name: name for name in names})


def hwnas360(
    path: str | Path | None = None,
    device: str = "pi5",
    framework: str = "onnx",
    task: str = "cifar100",
    index_path: str | Path | None = None,
) -> ArchitectureTable:
    """HW-NAS-Bench-360: ``latency_ms`` and ``energy_mj`` of measured cells, ``accuracy`` of all.

    Upstream copies latency and energy from one cell to others that it holds to be equal but that
    often are not; only cells that were measured themselves (``rep_arch_idx == arch_idx``) are kept,
    the others are NaN. ``accuracy`` is each cell's own test accuracy, here as a fraction, 0 to 1.

    Args:
        path: The parquet file; default ``hwnas360/dataset.parquet`` under ``$GNOMON_DATA``.
        device, framework, task: Which rows.
        index_path: HELP's ``str_arch2idx.pt``, since the parquet file numbers cells only; default
            ``help/nasbench201/str_arch2idx.pt`` under ``$GNOMON_DATA``.

    Raises:
        DataError: If files are missing or damaged, or there are no such rows.
        DependencyError: If pyarrow is not installed.
    """
    file = data_path(PARQUET, path)
    rows = _parquet_rows(file, {"device": device, "framework": framework, "task": task})
    space = NASBench201()
    every_cell = cells(read_index(data_path(f"{HELP_FOLDER}/{INDEX_FILE}", index_path)), space)
    index = rows["arch_idx"].astype(np.int64)
    if len(np.unique(index)) != len(index) or index.min() < 0 or index.max() >= len(every_cell):
        raise DataError(
            f"{file}: arch_idx repeats or is out of range", allowed=f"0 to {len(every_cell) - 1}, once each"
        )
    copied = rows["rep_arch_idx"].astype(np.int64) != index
    failed = rows["status"] != "ok"
    measured = ~(copied | failed)
    note = f"{copied.sum()} copied and {(failed & ~copied).sum()} failed of {len(index)} cells left out"
    return ArchitectureTable(
        space,
        every_cell[index],
        {
            "latency_ms": np.where(measured, rows["lat_ms_median"].astype(np.float64), np.nan),
            "energy_mj": np.where(measured, rows["energy_mj"].astype(np.float64), np.nan),
            "accuracy": rows["accuracy"].astype(np.float64) / 100.0,
        },
        f"HW-NAS-Bench-360 (roldebijvank/HW-NAS-Bench-360), {device}, {framework}, {task}: {file}",
        {"latency_ms": note, "energy_mj": note, "accuracy": f"test accuracy on {task}, percent / 100"},
        {"latency_ms": f"{device}_{framework}" + ("" if task == "cifar100" else f"_{task}")},
    )


def read_index(path: Path) -> list[str]:
    """Cell strings by NAS-Bench-201 index, from HELP's ``str_arch2idx.pt``.

    Raises:
        DataError: If the file is missing or damaged, or numbers are not 0 to n - 1.
    """
    index = load_plain(data_path(INDEX_FILE, path))
    if not isinstance(index, Mapping) or sorted(index.values()) != list(range(len(index))):
        raise DataError(f"{path} does not number cells", allowed="a dict of cell string to 0, 1, 2 ...")
    return sorted(index, key=index.__getitem__)


def cells(strings: Sequence[str], space: NASBench201) -> Genotypes:
    """Canonical genotypes ``(n, 6)`` of cell strings such as ``|none~0|+|none~0|...|``.

    Raises:
        DataError: If a string is not a cell, or cells repeat.
    """
    choices = [{choice: i for i, choice in enumerate(decision.choices)} for decision in space.decisions]
    genotypes = np.empty((len(strings), len(choices)), dtype=GENE_DTYPE)
    for row, text in enumerate(strings):
        match = _CELL.fullmatch(text)
        try:
            genotypes[row] = [known[op] for known, op in zip(choices, match.groups() if match else (), strict=True)]
        except (KeyError, ValueError) as error:
            raise DataError("not a NAS-Bench-201 cell", field="cell", value=text) from error
    genotypes = space.canonical(genotypes)
    if len(set(space.keys(genotypes))) != len(genotypes):
        raise DataError("cells repeat", field="cells", value=len(strings))
    return genotypes


def latency_column(values: Any, n: int, path: Path) -> tuple[FloatArray, str]:
    """``(n,)`` ms and a note on what is missing: a shorter list leaves the last cells unmeasured."""
    try:
        found = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is not a list of latencies: {error}") from error
    if found.ndim != 1:
        raise DataError(f"{path} is not a list of latencies")
    if len(found) > n:
        raise DataError(
            f"{path} holds more latencies than there are architectures", value=len(found), field="rows", allowed=str(n)
        )
    column = np.full(n, np.nan)
    column[: len(found)] = np.where(np.isfinite(found) & (found > 0), found, np.nan)
    missing = int(np.isnan(column).sum())
    return column, f"{missing} of {n} architectures have no latency" if missing else ""


def _parquet_rows(path: Path, wanted: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DependencyError(
            "HW-NAS-Bench-360 is a parquet file, which needs pyarrow", hint="pip install 'gnomon-nas[tables]'"
        ) from error
    try:
        file = pyarrow.parquet.ParquetFile(path)
        missing = [name for name in PARQUET_COLUMNS if name not in file.schema_arrow.names]
        if missing:
            raise DataError(f"{path} lacks columns", field="columns", value=missing, allowed=PARQUET_COLUMNS)
        table = file.read(columns=list(PARQUET_COLUMNS))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
    columns = {name: table[name].to_numpy() for name in PARQUET_COLUMNS}
    keep = np.logical_and.reduce([columns[name] == value for name, value in wanted.items()])
    if not keep.any():
        raise DataError(f"{path} has no such rows", field="rows", value=dict(wanted), allowed=_triples(columns, wanted))
    return {name: column[keep] for name, column in columns.items()}


def _triples(columns: Mapping[str, npt.NDArray[Any]], names: Iterable[str]) -> list[str]:
    return sorted({"/".join(map(str, row)) for row in zip(*(columns[name] for name in names), strict=True)})
