"""``gnomon measure pool``, on tables as devices and on ONNX Runtime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gnomon import cli
from gnomon.records import ArchitectureTable
from gnomon.records.pools import load_pool
from gnomon.records.store import MeasurementStore
from gnomon.records.table_file import save_table
from gnomon.search.pool_collection import distinct_architectures
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201

SPACE = NASBench201()
POOL = """
fast: {device: recorded, change: {column: a, table: {_target_: gnomon.records.table_file.load_table, path: table.npz}}}
slow:
  device: recorded
  change: {column: b, table: {_target_: gnomon.records.table_file.load_table, path: table.npz}}
  architectures: 15
absent: {device: torch_cuda}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    every = SPACE.enumerate(20_000)
    latency = 1.0 + SPACE.costs(every).macs / 1e8
    latency_b = np.where(np.arange(len(every)) % 7 == 0, np.nan, 2.0 * latency)
    table = ArchitectureTable(SPACE, every, {"a": latency, "b": latency_b}, "made up", {}, {"a": "a", "b": "b"})
    save_table(table, tmp_path / "table.npz")
    (tmp_path / "conf" / "pool").mkdir(parents=True)
    (tmp_path / "conf" / "pool" / "mine.yaml").write_text(POOL)
    return tmp_path


def gnomon(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    assert cli.main(["measure", "pool", "--config-dir=conf", "pool=mine", "space=nasbench201", *words]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_a_pool_is_measured_and_goes_on_where_it_was(here, capsys, monkeypatch):
    first = gnomon(capsys, "n=20", "to=p.npz")
    assert "left out: absent" in first
    pool = load_pool("p.npz")
    assert pool.settings == ("fast", "slow")
    assert (pool.column("fast") > 0).sum() == 20
    failed = 15 - (pool.column("slow") > 0).sum()
    assert 0 < failed < 15, "some are missing in the table, and a model that fails costs its measurement only"
    known = np.isfinite(pool.latencies_ms).all(axis=1)
    np.testing.assert_allclose(pool.column("slow")[known], 2.0 * pool.column("fast")[known])
    assert pool.provenance["slow"]["verdicts"] == {"good": int(15 - failed)}
    assert pool.provenance["fast"]["setting"]["hardware"] == "a"
    count = len(MeasurementStore(here / "runs" / "measurements.sqlite"))
    again = json.loads(gnomon(capsys, "n=30", "to=p.npz", "--json").splitlines()[-1])
    assert again["architectures"] == 30
    assert again["settings"] == {"fast": 30, "slow": 15 - failed}
    added = len(MeasurementStore(here / "runs" / "measurements.sqlite")) - count
    assert added == 10 + failed, "only what was missing is measured"


def test_a_plan_measures_nothing(here, capsys):
    plan = json.loads(gnomon(capsys, "n=20", "--plan", "--json"))
    assert plan["measurements"] == 35
    assert list(plan["left_out"]) == ["absent"]
    assert not (here / "pool.npz").exists()
    assert "slow: 15 architectures" in gnomon(capsys, "n=20", "--plan")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["only=[fats]"], "fast, slow"),
        (["only=[absent]"], "no setting can run here"),
        (["+pool.odd={device: recorded, bach: 3}"], "pool.odd"),
        (["+pool.odd={device: recorded, change: {colum: a}}"], "no such key"),
        (["+pool.odd={device: nowhere}"], "nowhere"),
        (["n=0"], "1 or more"),
        (["n=100000"], "fewer"),
    ],
)
def test_a_mistake_gets_one_line(here, capsys, words, says):
    printed = gnomon(capsys, *words, code=2)
    assert says in printed
    assert "Traceback" not in printed


def test_one_setting_under_two_names_is_refused(here, capsys):
    twin = "+pool.twin={device: recorded, change: {column: a, table: {_target_: gnomon.records.table_file.load_table, path: table.npz}}}"  # noqa: E501
    assert "one and the same" in gnomon(capsys, "n=10", twin, code=2)


def test_architectures_differ_in_what_runs():
    rows = distinct_architectures(SPACE, 80, seed=0)
    live = SPACE.execution_counts(rows)[:, -1]
    assert len(np.unique(live, axis=0)) == 80
    np.testing.assert_array_equal(rows, distinct_architectures(SPACE, 80, seed=0))
    mobile = MobileCNN((3, 96, 96), 10)
    rows = distinct_architectures(mobile, 30, seed=0)
    assert set(mobile.keys(rows)) >= {mobile.keys(mobile.genotype(c)[None])[0] for c in mobile.named.values()}


def test_measure_is_a_command_and_a_group(capsys):
    assert cli.main(["measure", "--help"]) == 0
    assert "gnomon measure pool" in capsys.readouterr().out
    assert cli.main(["measure", "pool", "--help"]) == 0
    assert "architectures" in capsys.readouterr().out


@pytest.mark.slow
def test_onnxruntime_for_real(here, capsys):
    words = ["pool=onnxruntime", "only=[onnxruntime,onnxruntime_unfused]", "n=4", "protocol=quick", "to=real.npz"]
    gnomon(capsys, *words, "space=mobile_cnn", "space.input_shape=[3,32,32]", "space.classes=10")
    pool = load_pool("real.npz")
    assert pool.latencies_ms.shape == (4, 2)
    assert np.isfinite(pool.latencies_ms).all()
    assert pool.provenance["onnxruntime"]["fingerprint"]["cores"] > 0
