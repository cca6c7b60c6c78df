"""Pool files: what is written comes back, other files are refused; and pools of one's own measurements."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gnomon.errors import DataError, SchemaError
from gnomon.records import ArchitectureTable, DevicePool, Fingerprint, Measurement, Setting, Workload
from gnomon.records.pools import load_pool, pool_from_store, save_pool
from gnomon.records.store import MeasurementStore
from gnomon.records.table_file import load_table, save_table
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro

NAN = np.nan


@pytest.fixture
def pool() -> DevicePool:
    space = NASBench201((3, 16, 16), classes=10)
    rows = space.enumerate()[[3, 1, 2]]
    latencies = np.array([[1.5, NAN], [2.0, 20.0], [NAN, 30.0]])
    return DevicePool(("a", "b_32"), latencies, "where from", space, rows, notes={"a": "one missing"})


@pytest.fixture
def features_only() -> DevicePool:
    return DevicePool(("a",), np.ones((2, 1)), "s", features=np.array([[1.0, 2], [3, 4]]), feature_names=("x", "y"))


def equal(one: DevicePool, two: DevicePool) -> bool:
    same = np.array_equal(one.latencies_ms, two.latencies_ms, equal_nan=True)
    for name in ("genotypes", "features"):
        left, right = getattr(one, name), getattr(two, name)
        same &= (left is None) == (right is None) and (left is None or np.array_equal(left, right))
    spaces = [None if p.space is None else p.space.spec() for p in (one, two)]
    texts = [(p.settings, p.source, p.feature_names, dict(p.notes)) for p in (one, two)]
    return bool(same and spaces[0] == spaces[1] and texts[0] == texts[1])


@pytest.mark.parametrize("name", ["pool", "features_only"])
def test_what_is_saved_comes_back(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pool = request.getfixturevalue(name)
    path = tmp_path / "new" / "pool.npz"
    save_pool(pool, path)
    assert equal(load_pool(path), pool)
    assert equal(load_pool(str(path)), pool)


def test_a_file_holds_no_pickle_and_its_version(pool: DevicePool, tmp_path: Path) -> None:
    save_pool(pool, tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as file:
        header = json.loads(str(file["header"]))
        assert sorted(file.files) == ["genotypes", "header", "latencies_ms"]
    assert header["schema"] == "gnomon.device_pool/1"
    assert header["space"] == pool.space.spec()  # type: ignore[union-attr]


def damaged(header: dict[str, Any], **arrays: Any) -> dict[str, Any]:
    return {"header": np.array(json.dumps(header)), **arrays}


GOOD = {
    "schema": "gnomon.device_pool/1",
    "settings": ["a"],
    "source": "s",
    "space": None,
    "feature_names": ["x"],
    "notes": {},
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damaged({**GOOD, "schema": "gnomon.device_pool/9"}), "another schema"),
        (damaged({**GOOD, "schema": "other/1"}), "another schema"),
        (damaged({"schema": GOOD["schema"]}), "not a whole pool"),
        (damaged(GOOD), "not a whole pool"),
        ({"header": np.array("no json")}, "cannot read"),
        ({"header": np.array("[1]")}, "cannot read"),
        ({"x": np.ones(3)}, "cannot read"),
    ],
)
def test_other_files_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", **content)
    with pytest.raises(SchemaError, match=message):
        load_pool(tmp_path / "p.npz")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_files_that_are_no_archives(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    if content is not None:
        path.write_bytes(content)
    for load in (load_pool, load_table):
        with pytest.raises(SchemaError, match="cannot read"):
            load(path)


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    content = damaged(GOOD, latencies_ms=np.array([[{}]], dtype=object), features=np.ones((1, 1)))
    np.savez(tmp_path / "p.npz", allow_pickle=True, **content)
    with pytest.raises(SchemaError, match="cannot read"):
        load_pool(tmp_path / "p.npz")


# ---- Tables and pools ---------------------------------------------------------------------------


def test_latencies_of_an_imported_table_are_a_pool(tmp_path: Path) -> None:
    space = NASBench201()
    columns = {"latency_ms": np.array([1.0, NAN, 3.0]), "accuracy": np.array([0.1, 0.2, 0.3])}
    notes = {"latency_ms": "one left out"}
    table = ArchitectureTable(space, space.enumerate()[:3], columns, "s", notes, {"latency_ms": "pi5_onnx"})
    save_table(table, tmp_path / "t.npz")
    assert dict(load_table(tmp_path / "t.npz").settings) == {"latency_ms": "pi5_onnx"}
    pool = load_pool(tmp_path / "t.npz")
    assert pool.settings == ("pi5_onnx",)
    assert pool.column("pi5_onnx").tolist() == [1.0, 3.0]
    assert dict(pool.notes) == {"pi5_onnx": "one left out"}


def test_a_table_of_accuracies_is_no_pool(tmp_path: Path) -> None:
    space = NASBenchMacro()
    save_table(ArchitectureTable(space, space.enumerate()[:1], {"accuracy": np.ones(1)}, "s"), tmp_path / "t.npz")
    with pytest.raises(DataError, match="holds no latencies"):
        load_pool(tmp_path / "t.npz")


def test_a_pool_is_a_table_for_recorded_devices(pool: DevicePool, features_only: DevicePool, tmp_path: Path) -> None:
    save_pool(pool, tmp_path / "p.npz")
    table = load_table(tmp_path / "p.npz")
    assert pool.genotypes is not None
    np.testing.assert_array_equal(table.lookup(pool.genotypes, "b_32"), [NAN, 20, 30])
    save_pool(features_only, tmp_path / "f.npz")
    with pytest.raises(DataError, match="names no architectures"):
        load_table(tmp_path / "f.npz")


# ---- The measurement store ----------------------------------------------------------------------

FINGERPRINT = Fingerprint("Some CPU", 2, 2**33, "Linux", "3.11", "ort", 1, "fp32")
SPACE = NASBenchMacro()


def setting(device: str = "board", threads: int = 1) -> Setting:
    return Setting(device, "x86", "ort 1", Workload((3, 32, 32)), threads=threads)


def measured(config: str, minimum: float | None, second: int = 0, of: Setting | None = None, **changes: Any) -> Any:
    row = SPACE.named_genotype(config)
    values = {"minimum": minimum, "median": None if minimum is None else minimum + 1}
    time = f"2026-01-01T00:00:{second:02d}+00:00"
    key = SPACE.keys(row[None])[0]
    measurement = Measurement(key, of or setting(), "protocol", "minimum", "good", FINGERPRINT, time, **values)
    return SPACE.deployable(SPACE.config(row)).id, replace(measurement, **changes)


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    return MeasurementStore(tmp_path / "measurements.sqlite")


def put(store: MeasurementStore, *entries: Any) -> MeasurementStore:
    for deployable, measurement in entries:
        store.put(deployable, measurement)
    return store


def test_settings_are_columns_and_architectures_rows(store: MeasurementStore) -> None:
    phone = setting("phone")
    put(
        store,
        measured("all_mb3_k3", 3.0),
        measured("all_identity", 1.0),
        measured("all_mb3_k3", 30.0, of=phone),
    )
    pool = pool_from_store(store, SPACE)
    assert pool.settings == ("board", "phone")
    np.testing.assert_array_equal(pool.latencies_ms, [[3, 30], [1, NAN]])
    np.testing.assert_array_equal(
        pool.genotypes, np.stack([SPACE.named_genotype(name) for name in ("all_mb3_k3", "all_identity")])
    )
    np.testing.assert_array_equal(pool_from_store(store, SPACE, "median").latencies_ms, [[4, 31], [2, NAN]])


def test_settings_of_one_device_are_told_apart(store: MeasurementStore) -> None:
    put(store, measured("all_mb3_k3", 3.0), measured("all_mb3_k3", 2.0, of=setting(threads=2)))
    pool = pool_from_store(store, SPACE)
    assert pool.settings == (f"board_{setting().id[:8]}", f"board_{setting(threads=2).id[:8]}")
    np.testing.assert_array_equal(pool.latencies_ms, [[3, 2]])


def test_good_before_noisy_then_the_newest_and_never_failed(store: MeasurementStore) -> None:
    put(
        store,
        measured("all_mb3_k3", 3.0, 1),
        measured("all_mb3_k3", 5.0, 9, verdict="noisy"),
        measured("all_mb3_k3", 4.0, 2),
        measured("all_mb3_k3", None, 10, verdict="failed", error="crash"),
        measured("all_identity", 7.0, 1, verdict="noisy"),
        measured("all_mb6_k5", None, 1, verdict="failed", error="crash"),
    )
    np.testing.assert_array_equal(pool_from_store(store, SPACE).latencies_ms, [[4], [7]])


def test_other_spaces_and_files_are_left_out(store: MeasurementStore) -> None:
    """A key alone does not say which space it is of; a trained file not which architecture."""
    _, measurement = measured("all_mb3_k3", 3.0)
    other = NASBenchMacro((3, 64, 64))
    row = other.named_genotype("all_mb3_k3")
    put(
        store,
        (other.deployable(other.config(row)).id, measurement),
        ("contents of a file", measurement),
        ("d", replace(measurement, architecture="model.onnx")),
        ("d", replace(measurement, architecture="0.1")),
    )
    with pytest.raises(DataError, match="no measurement of this space"):
        pool_from_store(store, SPACE)
    np.testing.assert_array_equal(pool_from_store(store, other).latencies_ms, [[3]])


def test_unknown_statistics_are_refused(store: MeasurementStore) -> None:
    with pytest.raises(DataError, match=r"statistic='mean'.*minimum, p10, median, p90"):
        pool_from_store(store, SPACE, "mean")  # type: ignore[arg-type]
