from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from gnomon.errors import SchemaError, StudyError
from gnomon.records import (
    Evaluation,
    Fingerprint,
    Measurement,
    ModelRow,
    ReferenceRow,
    Setting,
    StudySummary,
    TrialRow,
    Workload,
)
from gnomon.schema import Record, check_schema, read_json, write_bytes, write_json, write_text
from gnomon.search_spaces import Architecture

SETTING = Setting("onnxruntime", "x86", "onnxruntime 1.2", Workload((1, 28, 28), batch=4), options={"level": "all"})
FINGERPRINT = Fingerprint("Some CPU", 2, 2**33, "Linux", "3.11", "onnxruntime 1.2", 1, "fp32", virtual=True)
MEASUREMENT = Measurement(
    "0.1", SETTING, "p", "minimum", "good", FINGERPRINT, "2026-01-01T00:00:00+00:00",
    minimum=1.5, interval=(1.48, 1.53), process_values=(1.5, 1.51), parts={"main": 1.5},
)  # fmt: skip
MODEL = ModelRow(
    "0.1", {"kernel": 3, "se": 0.25, "skip": True, "op": "conv"}, {"accuracy": 0.9}, {"accuracy": 0.8}, 1.0, 0.1,
    {"macs": 3e6}, True, measurement=MEASUREMENT, files=("model.onnx",),
)  # fmt: skip
SUMMARY = StudySummary(
    "s", "0.1", "2026", "mobile_cnn", {"name": "digits"}, "accuracy", SETTING, FINGERPRINT, "minimum", "nsga2",
    "analytic", 0, ("quality",), ("maximize",), 0.9, trials=(TrialRow(0, "0.1", "done", 0.5, values=(0.5, 2.0)),),
    references=(ReferenceRow("0.1", 1.0, 1.1, 0.1),), models=(MODEL,), hypervolume=((1, 0.5), (2, 0.75)),
)  # fmt: skip


@pytest.mark.parametrize(
    "record",
    [
        Workload((3, 224, 224)),
        Workload((16,), source_length=5, phase="step"),
        Architecture({"_target_": "x.Y", "blocks": [{"filters": 8}]}, "0.1", {"kernel": 3, "skip": True, "op": "a"}),
        Evaluation(0.9, {"loss": 0.1}, 3.0, curve=(0.5, 0.9)),
        SETTING,
        FINGERPRINT,
        MEASUREMENT,
        MODEL,
        SUMMARY,
    ],
    ids=lambda record: type(record).__name__,
)
def test_round_trip_through_json(record: Record) -> None:
    again = type(record).from_json(record.to_json())
    assert again == record
    assert again.to_json() == record.to_json()


def test_identity_survives_the_round_trip() -> None:
    assert Setting.from_json(SETTING.to_json()).id == SETTING.id
    assert Setting.from_json(SETTING.to_json().replace('"threads": 1', '"threads": 2')).id != SETTING.id


@dataclass(frozen=True)
class Sample(Record):
    SCHEMA: ClassVar[str] = "test.sample/2"

    size: float
    shape: tuple[int, ...] = ()
    pair: tuple[str, int] | None = None
    names: list[str] = field(default_factory=list)
    parts: Mapping[str, float] = field(default_factory=dict)
    path: Any = None


def test_numpy_scalars_and_paths_become_plain_json() -> None:
    sample = Sample(np.float32(0.5), (np.int64(3),), parts={"a": np.float64(1)}, path=Path("x/y"))  # type: ignore[arg-type]
    assert json.loads(sample.to_json()) == {
        "schema": "test.sample/2", "size": 0.5, "shape": [3], "pair": None, "names": [], "parts": {"a": 1.0},
        "path": "x/y",
    }  # fmt: skip


def test_types_come_back() -> None:
    sample = Sample.from_dict({"schema": "test.sample/2", "size": 1, "shape": [2, 3], "pair": ["a", 1], "names": ["b"]})
    assert isinstance(sample.size, float)
    assert sample == Sample(1.0, (2, 3), ("a", 1), ["b"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"schema": "test.sample/2", "size": 1, "colour": 1, "age": 2}, r"fields=\['age', 'colour'\].*allowed: names"),
        ({"schema": "test.sample/2"}, "cannot read Sample.*size"),
        ({"schema": "test.sample/3", "size": 1}, r"schema='test\.sample/3'.*allowed: test\.sample/2"),
        ({"size": 1}, "schema=None"),
        ({"schema": "test.sample/2", "size": 1, "pair": ["a"]}, "cannot read Sample"),
        ({"schema": "test.sample/2", "size": 1, "shape": 4}, "cannot read Sample"),
    ],
    ids=["unknown", "missing", "newer", "none", "short_pair", "not_a_list"],
)
def test_other_data_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        Sample.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", '{"size": 1', "[1, 2", "\x00"])
def test_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="not JSON"):
        Sample.from_json(text)


@pytest.mark.parametrize("text", ["[1, 2]", "3", "null", '"text"'])
def test_json_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="not a JSON object"):
        Sample.from_json(text)


def test_nested_record_that_is_no_object_is_refused() -> None:
    data = SETTING.to_dict() | {"workload": "big"}
    with pytest.raises(SchemaError, match="cannot read Workload: not a JSON object"):
        Setting.from_dict(data)


def test_check_schema_names_the_source() -> None:
    with pytest.raises(SchemaError, match=r"runs/a\.json was written with another schema"):
        check_schema({"schema": "b/1"}, "a/1", source=Path("runs/a.json"))


def test_write_and_read_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "state.json"
    write_json(path, "state/1", {"b": [1, 2], "a": None})
    assert read_json(path, "state/1") == {"a": None, "b": [1, 2]}
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(SchemaError, match=r"state\.json was written with another schema"):
        read_json(path, "state/2")


@pytest.mark.parametrize("content", [b"", b'{"schema": "s/1", ', b"[]", b"\xff\xfe"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(SchemaError, match=r"cannot read .*state\.json"):
        read_json(path, "s/1")
    assert path.read_bytes() == content


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="No such file"):
        read_json(tmp_path / "none.json", "s/1")


def test_replacing_leaves_one_file(tmp_path: Path) -> None:
    for text in ("first", "zweite Zeile: é"):
        write_text(tmp_path / "f.txt", text)
    assert (tmp_path / "f.txt").read_text(encoding="utf-8") == "zweite Zeile: é"
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_full_disk_keeps_the_old_file(broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.bin"
    write_bytes(path, b"old")

    def no_space(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, broken, no_space)
    with pytest.raises(StudyError, match=r"cannot write .*f\.bin: No space left on device.*free space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_full_disk_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself says ENOSPC: the temporary file is opened on /dev/full."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    monkeypatch.setattr("tempfile.mkstemp", lambda **_: (descriptor, str(tmp_path / ".f.partial")))
    with pytest.raises(StudyError, match="No space left"):
        write_text(tmp_path / "f.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match=r"cannot write .*Check permissions"):
        write_text(tmp_path / "file" / "f.txt", "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(StudyError, match="Permission denied"):
            write_text(tmp_path / "f.txt", "x")
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, which not even root can write")
def test_folder_that_nobody_may_write() -> None:
    with pytest.raises(StudyError, match="cannot write"):
        write_text(Path("/proc/self/gnomon/f.txt"), "x")


def _write_many(path: Path, letter: str) -> None:
    for _ in range(60):
        write_text(path, letter * 20_000)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    write_text(path, "a" * 20_000)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_many, args=(path, letter)) for letter in "bc"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert len(text) == 20_000
        seen.add(text[0])
        assert set(text) == {text[0]}
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert seen & set("bc")
    assert [p.name for p in tmp_path.iterdir()] == ["f.txt"]
