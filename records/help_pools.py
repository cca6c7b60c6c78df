"""HELP's measurements as pools (Lee et al., 2106.08630; github.com/HayeonLee/HELP, MIT).

Three spaces: all 15,625 cells of NAS-Bench-201, 5,000 networks of FBNet and 5,000 sub-networks of
Once-for-All. Devices are named as upstream names its files, batch size included
(``1080ti_32``). Rows keep upstream's order: the published splits are row numbers.

Values are upstream's own. Phones are recorded in whole milliseconds, and cells of NAS-Bench-201
without a path from input to output take 0.01 ms or less where a runtime removed dead code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DataError, SpaceError
from ..search_spaces import Genotypes, SearchSpace
from ..search_spaces.fbnet import FBNet
from ..search_spaces.ofa_mobilenet import OFAMobileNet
from .data_root import data_path
from .nasbench201_tables import HELP_FOLDER, INDEX_FILE, help_nasbench201, latency_column
from .pool import DevicePool
from .torch_files import load_plain

FBNET_FOLDER, OFA_FOLDER = "help/fbnet", "help/ofa"
FBNET_FILES = ("arch.pt", "metainfo.pt")
"""Two upstream forms: rows of indices, or a dict whose ``arch`` lists ``{"op_idx_list": row}``."""
OFA_FILE = "ofa_archs.pt"
LATENCIES = "latency"


def help_pool(path: str | Path | None = None, devices: Sequence[str] | None = None) -> DevicePool:
    """Whichever of HELP's three data sets the folder holds; by default NAS-Bench-201.

    Raises:
        DataError: If the folder is missing or holds none of them.
    """
    folder = data_path(HELP_FOLDER, path)
    if (folder / INDEX_FILE).exists():
        return help_nasbench201_pool(folder, devices)
    if any((folder / name).exists() for name in FBNET_FILES):
        return help_fbnet_pool(folder, devices)
    if (folder / OFA_FILE).exists():
        return help_ofa_pool(folder, devices)
    raise DataError(
        "none of HELP's data sets",
        field="path",
        value=str(folder),
        allowed=f"a folder with {INDEX_FILE}, {' or '.join(FBNET_FILES)}, or {OFA_FILE}, and {LATENCIES}/",
    )


def help_nasbench201_pool(path: str | Path | None = None, devices: Sequence[str] | None = None) -> DevicePool:
    """HELP's NAS-Bench-201: 15,625 cells, 27 settings.

    Args:
        path: The folder with ``str_arch2idx.pt`` and ``latency/``; default ``help/nasbench201``
            under ``$GNOMON_DATA``.
        devices: Settings to read, in this order; default all.

    Raises:
        DataError: If files are missing or damaged, or a device is unknown.
    """
    return DevicePool.from_table(help_nasbench201(path, devices))


def help_fbnet_pool(path: str | Path | None = None, devices: Sequence[str] | None = None) -> DevicePool:
    """HELP's FBNet: 5,000 networks at 224 pixels.

    Upstream measured further devices than every copy holds; what the folder has is read.

    Args:
        path: The folder with ``arch.pt`` (or upstream's ``metainfo.pt``) and ``latency/``;
            default ``help/fbnet`` under ``$GNOMON_DATA``.
        devices: Settings to read, in this order; default all.

    Raises:
        DataError: If files are missing or damaged, or a device is unknown.
    """
    folder = data_path(FBNET_FOLDER, path)
    file = next((folder / name for name in FBNET_FILES if (folder / name).exists()), None)
    if file is None:
        raise DataError("no architectures", field="path", value=str(folder), allowed=f"{' or '.join(FBNET_FILES)}")
    space = FBNet()
    try:
        genotypes = space.genotypes_from_indices(_fbnet_indices(load_plain(file)))
    except (SpaceError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"{file} does not hold FBNet's architectures: {error}") from error
    return _pool(space, genotypes, folder, file, devices, "HELP, FBNet")


def help_ofa_pool(path: str | Path | None = None, devices: Sequence[str] | None = None) -> DevicePool:
    """HELP's Once-for-All: 5,000 sub-networks of the MobileNetV3 super-network.

    Args:
        path: The folder with ``ofa_archs.pt`` and ``latency/``; default ``help/ofa`` under
            ``$GNOMON_DATA``.
        devices: Settings to read, in this order; default all.

    Raises:
        DataError: If files are missing or damaged, or a device is unknown.
    """
    folder = data_path(OFA_FOLDER, path)
    file = folder / OFA_FILE
    space = OFAMobileNet()
    content = load_plain(data_path(OFA_FILE, file))
    try:
        genotypes = space.genotypes_from_archs(content["arch"])
    except (SpaceError, TypeError, ValueError, KeyError) as error:
        raise DataError(f"{file} does not hold Once-for-All sub-networks: {error}") from error
    return _pool(space, genotypes, folder, file, devices, "HELP, Once-for-All")


def _fbnet_indices(content: Any) -> npt.NDArray[np.int64]:
    rows = [entry["op_idx_list"] for entry in content["arch"]] if isinstance(content, Mapping) else content
    return np.array(rows, dtype=np.int64)


def _pool(
    space: SearchSpace, genotypes: Genotypes, folder: Path, file: Path, devices: Sequence[str] | None, name: str
) -> DevicePool:
    if len(set(space.keys(genotypes))) != len(genotypes):
        raise DataError(f"{file}: architectures repeat", field="rows", value=len(genotypes))
    files = {path.stem: path for path in sorted((folder / LATENCIES).glob("*.pt"))}
    if not files:
        raise DataError(f"no latencies in {folder / LATENCIES}", field="path", value=str(folder))
    settings = tuple(files) if devices is None else tuple(devices)
    unknown = sorted(set(settings) - set(files))
    if unknown:
        raise DataError("not among the latencies here", field="devices", value=unknown, allowed=files)
    columns, notes = [], {}
    for setting in settings:
        column, note = latency_column(load_plain(files[setting]), len(genotypes), files[setting])
        columns.append(column)
        if note:
            notes[setting] = note
    source = f"{name} (HayeonLee/HELP, MIT): {folder}"
    return DevicePool(settings, np.stack(columns, axis=1), source, space, genotypes, notes=notes)
