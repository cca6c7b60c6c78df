from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gnomon.errors import SchemaError, StudyError
from gnomon.records import Fingerprint, Measurement, Setting, Workload
from gnomon.records.store import _GET, MeasurementStore

SETTING = Setting("onnxruntime", "x86", "onnxruntime 1.2", Workload((1, 28, 28)))
MEASUREMENT = Measurement(
    "0.1",
    SETTING,
    "protocol",
    "minimum",
    "good",
    Fingerprint("Some CPU", 2, 2**33, "Linux", "3.11", "onnxruntime 1.2", 1, "fp32"),
    "2026-01-01T00:00:00+00:00",
    minimum=1.5,
    interval=(1.4, 1.6),
)


def at(second: int, **changes: Any) -> Measurement:
    return replace(MEASUREMENT, timestamp=f"2026-01-01T00:00:{second:02d}+00:00", **changes)


def get(store: MeasurementStore, deployable: str = "d") -> Measurement | None:
    return store.get(SETTING.id, deployable, "protocol", "minimum")


@pytest.fixture
def store(tmp_path: Path) -> MeasurementStore:
    return MeasurementStore(tmp_path / "new" / "measurements.sqlite")


def test_what_is_put_comes_back_also_after_reopening(store: MeasurementStore) -> None:
    assert get(store) is None
    store.put("d", MEASUREMENT)
    assert get(store) == MEASUREMENT
    store.close()
    assert get(store) == MEASUREMENT
    with MeasurementStore(store.path) as again:
        assert get(again) == MEASUREMENT
        assert len(again) == 1


def test_every_part_of_the_key_counts(store: MeasurementStore) -> None:
    store.put("d", MEASUREMENT)
    other = replace(SETTING, threads=2)
    assert store.get(other.id, "d", "protocol", "minimum") is None
    assert store.get(SETTING.id, "e", "protocol", "minimum") is None
    assert store.get(SETTING.id, "d", "other", "minimum") is None
    assert store.get(SETTING.id, "d", "protocol", "median") is None


def test_good_before_newer_noisy_then_newest_never_failed(store: MeasurementStore) -> None:
    store.put("d", at(1, verdict="failed", minimum=None, error="crash"))
    assert get(store) is None
    store.put("d", noisy := at(2, verdict="noisy"))
    assert get(store) == noisy
    store.put("d", newer_throttled := at(3, verdict="throttled"))
    assert get(store) == newer_throttled
    store.put("d", good := at(5, minimum=2.0))
    store.put("d", at(4))
    store.put("d", at(9, verdict="noisy"))
    store.put("d", at(10, verdict="failed", minimum=None))
    assert get(store) == good


def test_all_keeps_order_failures_and_filters_by_setting(store: MeasurementStore) -> None:
    other = replace(SETTING, device="other")
    rows = [at(2), at(1, verdict="failed", minimum=None), at(3, setting=other)]
    for row in rows:
        store.put("d", row)
    assert store.all() == rows
    assert store.all(SETTING.id) == rows[:2]
    assert store.all(other.id) == rows[2:]
    assert store.all("none") == []


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from gnomon.records import Measurement
from gnomon.records.store import MeasurementStore

path, name, text = sys.argv[1:]
measurement = Measurement.from_json(text)
with MeasurementStore(Path(path)) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(100):
        store.put(f"{name}{i}", replace(measurement, architecture=f"{name}{i}"))
"""


def start_writer(path: Path, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, MEASUREMENT.to_json()]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_make_and_write_one_file_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    writers = [start_writer(path, name) for name in "ab"]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    with MeasurementStore(path) as store:
        found = [m.architecture for m in store.all()]
        assert sorted(found) == sorted(f"{name}{i}" for name in "ab" for i in range(100))
        assert get(store, "b99") is not None


def test_several_that_make_one_file_at_the_same_time_all_get_it(tmp_path: Path) -> None:
    users, files = 4, 40
    together = threading.Barrier(users)

    def use(name: str) -> None:
        for i in range(files):
            together.wait(timeout=60)
            with MeasurementStore(tmp_path / f"{i}.sqlite") as store:
                store.put(name, replace(MEASUREMENT, architecture=name))

    with ThreadPoolExecutor(users) as pool:
        list(pool.map(use, "abcd"))
    for i in range(files):
        with MeasurementStore(tmp_path / f"{i}.sqlite") as store:
            assert sorted(m.architecture for m in store.all()) == list("abcd")


def test_a_killed_writer_loses_nothing_that_put_returned(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    program = WRITER.replace("    for i in range(100):", "    for i in range(10**6):").replace(
        'architecture=f"{name}{i}"))', 'architecture=f"{name}{i}"))\n        print(i, flush=True)'
    )
    command = [sys.executable, "-c", program, str(path), "k", MEASUREMENT.to_json()]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("go\n")
    writer.stdin.flush()
    assert writer.stdout.readline() == "ready\n"
    while int(writer.stdout.readline()) < 20:
        pass
    writer.kill()
    returned = [int(line) for line in writer.stdout.read().split()]
    writer.wait()
    with MeasurementStore(path) as store:
        assert len(store) >= max([20, *returned]) + 1
        store.put("after", MEASUREMENT)


def test_threads_share_a_store(store: MeasurementStore) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for i in range(20):
                store.put(f"{name}{i}", MEASUREMENT)
                assert get(store, f"{name}{i}") is not None
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store) == 60


def test_a_forked_child_uses_its_own_connection(store: MeasurementStore) -> None:
    store.put("d", MEASUREMENT)
    pid = os.fork()
    if pid == 0:
        try:
            store.put("child", MEASUREMENT)
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert get(store, "child") == MEASUREMENT
    store.put("parent", MEASUREMENT)
    assert len(store) == 3


def test_look_up_uses_the_index(store: MeasurementStore) -> None:
    plan = store._connection().execute("EXPLAIN QUERY PLAN " + _GET, ("s", "d", "p", "minimum")).fetchall()
    assert "USING INDEX measurements_by_key (setting=? AND deployable=? AND protocol=? AND statistic=?)" in str(plan)


def test_damaged_file_is_reported_and_left_alone(store: MeasurementStore, tmp_path: Path) -> None:
    for i in range(200):
        store.put(f"d{i}", MEASUREMENT)
    store.close()
    content = bytearray(store.path.read_bytes())
    assert len(content) > 100_000
    for position in range(4096, len(content), 50):
        content[position] ^= 0xFF
    damaged = tmp_path / "damaged.sqlite"
    damaged.write_bytes(content)

    def use() -> None:
        for i in range(200):
            get(MeasurementStore(damaged), f"d{i}")

    with pytest.raises(StudyError, match=r"damaged\.sqlite is damaged.*Move it away, or restore"):
        use()
    assert damaged.read_bytes() == bytes(content)


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to be one" * 50, b"SQLite format 3\x00" + b"\x00" * 9]
)
def test_other_files_are_reported_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    with pytest.raises(StudyError, match=r"file\.txt is damaged"):
        MeasurementStore(path)
    assert path.read_bytes() == content


def test_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE measurements (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StudyError, match="not a measurement store"):
        MeasurementStore(path)
    assert path.read_bytes() == before


def test_newer_version(store: MeasurementStore) -> None:
    store.close()
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StudyError, match=r"store version=99.*allowed: up to 1"):
        MeasurementStore(store.path)


def test_row_of_another_schema_is_an_error_not_a_miss(store: MeasurementStore) -> None:
    store.put("d", MEASUREMENT)
    with store._connection() as connection:
        connection.execute(
            "UPDATE measurements SET measurement = replace(measurement, ?, 'gnomon.measurement/7')",
            (Measurement.SCHEMA,),
        )
    with pytest.raises(SchemaError, match="measurement/7"):
        get(store)


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot make the measurement store"):
        MeasurementStore(tmp_path / "file" / "m.sqlite")


def test_path_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="unable to open"):
        MeasurementStore(tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which not even root can write")
def test_folder_that_nobody_may_write() -> None:
    for path in ("/proc/self/gnomon/m.sqlite", "/proc/self/m.sqlite"):
        with pytest.raises(StudyError, match=r"m\.sqlite.*Check permissions"):
            MeasurementStore(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_read_only_folder(store: MeasurementStore) -> None:
    store.close()
    store.path.parent.chmod(0o555)
    try:
        with pytest.raises(StudyError, match="Check permissions"):
            MeasurementStore(store.path.parent / "other.sqlite")
    finally:
        store.path.parent.chmod(0o755)


def test_full_disk_is_reported_and_keeps_what_was_there(store: MeasurementStore) -> None:
    """SQLite's own limit on the file's size gives SQLITE_FULL, as a full disk does."""
    store.put("d", MEASUREMENT)
    connection = store._connection()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StudyError, match=r"full.*free space"):
        store.put("big", replace(MEASUREMENT, architecture="x" * 100_000))
    assert get(store) == MEASUREMENT
    assert len(store) == 1
