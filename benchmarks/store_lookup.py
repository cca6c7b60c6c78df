"""What a look-up costs in a measurement store of a million rows: ``python -m benchmarks.store_lookup``.

Every row holds a whole measurement, as a real store's do. Keys are looked up in random order, present
ones and absent ones; what counts is the call of :meth:`~gnomon.records.MeasurementStore.get`.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks._common import main
from gnomon.records import Fingerprint, Measurement, Setting, Workload
from gnomon.records.store import MeasurementStore

SETTINGS = 10
SEED = 0


def run(quick: bool) -> dict[str, float]:
    rows, look_ups = (20_000, 200) if quick else (1_000_000, 2_000)
    measurement = _measurement()
    with tempfile.TemporaryDirectory() as folder:
        store = MeasurementStore(Path(folder) / "measurements.sqlite")
        settings = [replace(measurement.setting, threads=threads + 1).id for threads in range(SETTINGS)]
        _fill(store.path, rows, settings, measurement)
        rng = np.random.default_rng(SEED)
        present = [_look_up(store, settings, int(i), True) for i in rng.integers(rows, size=look_ups)]
        absent = [_look_up(store, settings, rows + i, False) for i in range(look_ups)]
        return {
            "store_lookup_ms": float(np.median(present)),
            "present.p99_ms": float(np.quantile(present, 0.99)),
            "absent.p50_ms": float(np.median(absent)),
            "absent.p99_ms": float(np.quantile(absent, 0.99)),
            "rows": float(rows),
            "megabytes": store.path.stat().st_size / 1e6,
        }


def _measurement() -> Measurement:
    setting = Setting("onnxruntime", "a processor", "onnxruntime 1.31.1", Workload((3, 32, 32)), 1, "fp32", {})
    return Measurement(
        architecture="0" * 40,
        setting=setting,
        protocol="protocol",
        statistic="median",
        verdict="good",
        fingerprint=Fingerprint("a processor", 2, 2**33, "Linux", "3.11", "onnxruntime 1.31.1", 1, "fp32"),
        timestamp="2026-01-01T00:00:00+00:00",
        minimum=1.0,
        p10=1.01,
        median=1.02,
        p90=1.1,
        interval=(1.01, 1.03),
        process_values=(1.02, 1.03, 1.04),
        n_runs=600,
        n_warmup=60,
        parts={"main": 1.02},
    )


def _fill(path: Path, rows: int, settings: list[str], measurement: Measurement) -> None:
    """Straight into the table: through ``put`` each row would wait for the disk."""
    text = measurement.to_json()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA synchronous = OFF")
    with connection:
        connection.executemany(
            "INSERT INTO measurements (setting, deployable, protocol, statistic, verdict, timestamp, measurement)"
            " VALUES (?, ?, 'protocol', 'median', 'good', '2026-01-01T00:00:00+00:00', ?)",
            ((settings[i % SETTINGS], _key(i), text) for i in range(rows)),
        )
    connection.close()


def _key(i: int) -> str:
    """Spread over the index like the hashes that real keys are."""
    return f"{i * 0x9E3779B97F4A7C15 % 2**96:024x}"


def _look_up(store: MeasurementStore, settings: list[str], i: int, is_there: bool) -> float:
    """Milliseconds of one look-up."""
    start = time.perf_counter()
    found = store.get(settings[i % SETTINGS], _key(i), "protocol", "median")
    spent = 1e3 * (time.perf_counter() - start)
    if (found is None) == is_there:
        raise SystemExit("the store answered wrongly")
    return spent


if __name__ == "__main__":
    main("store_lookup", run, seeds=(SEED,))
