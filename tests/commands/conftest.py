"""A recorded study that needs no published data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gnomon.records import ArchitectureTable
from gnomon.records.table_file import save_table
from gnomon.search_spaces.nasbench201 import NASBench201


@pytest.fixture
def recorded_study(tmp_path: Path) -> list[str]:
    """Overrides of a search over made-up values of NAS-Bench-201, 12 evaluations."""
    space = NASBench201()
    rows = space.enumerate(20_000)
    latency = 1.0 + space.costs(rows).macs / 1e8
    quality = 1.0 - 1.0 / (1.0 + latency + 0.1 * np.random.default_rng(0).random(len(rows)))
    path = tmp_path / "table.npz"
    save_table(ArchitectureTable(space, rows, {"latency_ms": latency, "accuracy": quality}, "made up"), path)
    load = "gnomon.records.table_file.load_table"
    return [
        *("experiment=nasbench201_recorded", f"study.dir={tmp_path}/runs", "study.name=here", "study.evaluations=12"),
        *(f"device.table._target_={load}", f"device.table.path={path}", "device.column=latency_ms"),
        *(f"quality.table._target_={load}", f"quality.table.path={path}", "study.batch=4"),
    ]
