"""HW-NAS-Bench-360's measured cells as a pool of one setting."""

from __future__ import annotations

from pathlib import Path

from .nasbench201_tables import hwnas360
from .pool import DevicePool


def hwnas360_pool(
    path: str | Path | None = None,
    device: str = "pi5",
    framework: str = "onnx",
    task: str = "cifar100",
    index_path: str | Path | None = None,
) -> DevicePool:
    """One setting, named ``pi5_onnx`` (for another task ``pi5_onnx_<task>``), and only the cells
    that were measured themselves: upstream copies latencies to cells that it takes to be equal,
    many of which are not.

    Args:
        path: The parquet file; default ``hwnas360/dataset.parquet`` under ``$GNOMON_DATA``.
        device, framework, task: Which rows.
        index_path: HELP's ``str_arch2idx.pt``, which numbers the cells; default
            ``help/nasbench201/str_arch2idx.pt`` under ``$GNOMON_DATA``.

    Raises:
        DataError: If files are missing or damaged, or there are no such rows.
        DependencyError: If pyarrow is not installed.
    """
    return DevicePool.from_table(hwnas360(path, device, framework, task, index_path)).measured()
