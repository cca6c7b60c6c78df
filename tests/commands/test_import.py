"""``gnomon import``: every kind of data becomes one file that its readers take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gnomon import cli
from gnomon.records.pools import load_pool
from gnomon.records.table_file import load_table


@pytest.fixture
def fbnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "upstream"
    (folder / "latency").mkdir(parents=True)
    torch.save([[i] * 22 for i in range(4)], folder / "arch.pt")
    torch.save([1.0, 2.0, 3.0], folder / "latency" / "board.pt")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("data", ["help_fbnet", "help"])
def test_latencies_become_a_pool(data: str, fbnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", f"data={data}", f"from={fbnet}"]) == 0
    printed = capsys.readouterr().out
    assert "pool, 4 architectures of fbnet" in printed
    assert "board: 3 recorded; 1 of 4 architectures have no latency" in printed
    assert load_pool(f"pools/{data}.npz").settings == ("board",)


def test_what_was_imported_as_json(fbnet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "data=help_fbnet", f"from={fbnet}", "to=mine.npz", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["file"], printed["kind"], printed["space"]) == ("mine.npz", "pool", "fbnet")
    assert printed["recorded"] == {"board": 3}
    assert Path("mine.npz").exists()


def test_rows_without_architectures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    latencies = "nano_gpu_latency,openvino_latency,vim3_latency,a40_trt_latency,pi4_ort_latency"
    (tmp_path / "results.csv").write_text(f"{latencies},model_name\n1,2,3,4,5,yolo8n_160\n")
    to = tmp_path / "yolo.npz"
    assert cli.main(["import", "data=yolobench", f"from={tmp_path / 'results.csv'}", f"to={to}"]) == 0
    assert "pool, 1 rows of 4 features, no architectures" in capsys.readouterr().out
    assert load_pool(to).feature_names[-1] == "resolution"


def test_a_table_without_latencies_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = {"test_acc": [90, 91, 92], "params": 1, "flops": 2}
    (tmp_path / "macro.json").write_text(json.dumps({"00000000": entry}))
    to = tmp_path / "macro.npz"
    assert cli.main(["import", "data=nasbench_macro", f"from={tmp_path / 'macro.json'}", f"to={to}"]) == 0
    printed = capsys.readouterr().out
    assert "table, 1 architectures of nasbench_macro" in printed
    assert "holds no latencies: a table for recorded quality, not a pool" in printed
    assert list(load_table(to).columns) == ["accuracy", "accuracy_std", "params", "flops"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=help_fbnet", "from=/nowhere"], "no such data: /nowhere"),
        (["data=hat", "from=/"], "no tables in /"),
        (["data=hat", "data.part=half"], "part='half'"),
        (["data._target_=gnomon.records.data_root.data_path", "+data.name=x", "from=/"], "neither a table nor a pool"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", *words]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_the_real_help_is_a_table_and_a_pool(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    to = tmp_path / "help.npz"
    assert cli.main(["import", "data=help_nasbench201", f"to={to}"]) == 0
    assert "also a pool for predictors (27 settings)" in capsys.readouterr().out
    assert len(load_table(to).columns) == len(load_pool(to).settings) == 27
