"""Splits: rounds, rows, families; and every option of the config group against the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from gnomon import conf
from gnomon.errors import ConfigError, DataError
from gnomon.records import DevicePool
from gnomon.records.splits import DeviceSplit
from gnomon.search.instantiate import instantiate

FOLDER = Path(conf.__file__).parent / "split"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
NAN = np.nan


def make_pool(latencies: Any = None, settings: tuple[str, ...] = ("a_1", "a_2", "b", "c")) -> DevicePool:
    values = np.arange(1.0, 41.0).reshape(10, 4) if latencies is None else np.array(latencies, dtype=float)
    return DevicePool(settings, values, "s", features=np.arange(float(len(values)))[:, None], feature_names=("x",))


def split(**changes: Any) -> DeviceSplit:
    arguments: dict[str, Any] = {
        "name": "test",
        "data": [make_pool],
        "sources": ["a_1", "a_2"],
        "targets": ["b"],
        "source_rows": [0, 4],
        "reference_rows": [0, 6],
        "queries": {"all": {"rows": [6, 10]}},
        "families": {"a": ["a_1", "a_2"]},
    }
    return DeviceSplit(**{**arguments, **changes})


def rounds_of(made: DeviceSplit) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    return [(r.name, r.sources, r.targets) for r in made.rounds]


def test_one_round() -> None:
    made = split(validation=["c"])
    (only,) = made.rounds
    assert (only.name, only.sources, only.validation, only.targets) == ("test", ("a_1", "a_2"), ("c",), ("b",))


def test_each_left_out_with_its_card() -> None:
    made = split(sources=[], targets=["a_1", "b", "c"], leave_out="each")
    assert rounds_of(made) == [
        ("a_1", ("b", "c"), ("a_1",)),
        ("b", ("a_1", "c", "a_2"), ("b",)),
        ("c", ("a_1", "b", "a_2"), ("c",)),
    ]


def test_whole_families_left_out() -> None:
    made = split(sources=[], targets=[], leave_out="family", families={"a": ["a_1", "a_2"], "rest": ["b", "c"]})
    assert rounds_of(made) == [("a", ("b", "c"), ("a_1", "a_2")), ("rest", ("a_1", "a_2"), ("b", "c"))]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"sources": ["a_1"], "targets": ["a_2"]}, "family is among sources and targets"),
        ({"sources": ["b"], "targets": ["b"]}, "family is among sources and targets"),
        ({"validation": ["a_2"], "sources": ["a_1"]}, "family is among sources and validation"),
        ({"sources": []}, "no sources"),
        ({"targets": []}, "no targets"),
        ({"leave_out": "all"}, "leave_out"),
        ({"count": "cells"}, "count"),
        ({"queries": {}}, "queries"),
        ({"queries": {"all": {"rows": [5, 5]}}}, "queries.all"),
        ({"queries": {"all": {"rows": [0, 5], "middle": 0}}}, "queries.all"),
        ({"queries": {"all": {"row": [0, 5]}}}, "queries.all"),
        ({"source_rows": [3]}, "source_rows"),
        ({"reference_rows": [-1, 4]}, "reference_rows"),
        ({"reference_rows": ["a", 4]}, "reference_rows"),
    ],
)
def test_bad_splits_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        split(**changes)


def test_rows_are_of_the_pool() -> None:
    made = split()
    pool = made.pool()
    sources = made.source_pool(pool, made.rounds[0])
    assert sources.settings == ("a_1", "a_2")
    np.testing.assert_array_equal(sources.latencies_ms, pool.latencies_ms[:4, :2])
    np.testing.assert_array_equal(sources.features, [[0], [1], [2], [3]])
    assert made.reference_rows(pool, "b").tolist() == [0, 1, 2, 3, 4, 5]
    assert made.query_rows(pool, "b").tolist() == [6, 7, 8, 9]
    with pytest.raises(ConfigError, match=r"query='trim'.*allowed: all"):
        made.query_rows(pool, "b", "trim")


def test_what_was_not_measured_is_left_out() -> None:
    latencies = np.arange(1.0, 41.0).reshape(10, 4)
    latencies[[1, 7], 2] = NAN
    latencies[0, :2] = NAN
    made = split(data=[lambda: make_pool(latencies)])
    pool = made.pool()
    assert made.reference_rows(pool, "b").tolist() == [0, 2, 3, 4, 5]
    assert made.query_rows(pool, "b").tolist() == [6, 8, 9]
    np.testing.assert_array_equal(made.source_pool(pool, made.rounds[0]).features, [[1], [2], [3]])


def test_counting_a_settings_own_rows() -> None:
    """Tables without common rows: the second table's rows 0 and 1 are the pool's 3 and 4."""
    latencies = [[1, NAN], [2, NAN], [3, NAN], [NAN, 4], [NAN, 5], [NAN, 6]]
    made = split(
        data=[lambda: make_pool(latencies, ("x", "y"))],
        sources=["x"],
        targets=["y"],
        source_rows=[0, 2],
        reference_rows=[0, 2],
        queries={"all": {"rows": [2, 3]}},
        count="measured",
    )
    pool = made.pool()
    np.testing.assert_array_equal(made.source_pool(pool, made.rounds[0]).latencies_ms, [[1], [2]])
    assert made.reference_rows(pool, "y").tolist() == [3, 4]
    assert made.query_rows(pool, "y").tolist() == [5]


def test_trim_keeps_the_middle_of_the_targets_latencies() -> None:
    latencies = np.ones((10, 4))
    latencies[:, 2] = [5, 9, 1, 7, 3, 10, 2, 8, 4, 6]
    made = split(data=[lambda: make_pool(latencies)], queries={"trim": {"rows": [0, 10], "middle": 0.8}})
    rows = made.query_rows(made.pool(), "b", "trim")
    assert rows.tolist() == [0, 1, 3, 4, 6, 7, 8, 9]  # without 1 ms (row 2) and 10 ms (row 5)


def test_missing_settings_and_rows_are_named() -> None:
    made = split(targets=["d"], hint="Take another.")
    with pytest.raises(DataError, match=r"settings=\['d'\].*allowed: a_1, a_2, b, c.*Take another"):
        made.pool()
    with pytest.raises(DataError, match=r"more rows.*allowed: 12 rows"):
        split(queries={"all": {"rows": [6, 12]}}).pool()


# ---- The options that ship ------------------------------------------------------------------------


def load(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> DeviceSplit:
    monkeypatch.setenv("GNOMON_DATA", str(root))
    made = instantiate(OmegaConf.load(FOLDER / f"{name}.yaml"), "split")
    assert isinstance(made, DeviceSplit)
    return made


CARD = {"1080ti", "2080ti", "titanx", "titanxp", "titan_xp", "titan_rtx", "v100"}


def card(setting: str) -> str:
    """The card in a name such as ``titan_rtx_256``, without the split's own families."""
    name, _, batch = setting.rpartition("_")
    return name if batch.isdigit() and name in CARD else setting


@pytest.mark.parametrize("name", NAMES)
def test_every_split_against_the_data(name: str, data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "hwnas360_pi5_onnx":
        pytest.importorskip("pyarrow")
    made = load(name, data_root, monkeypatch)
    assert made.name == name
    for chosen in made.rounds:
        for side in (chosen.targets, chosen.validation):
            assert not {card(s) for s in side} & {card(s) for s in chosen.sources}, chosen.name
    if name == "help_fbnet" and not (data_root / "help" / "fbnet" / "latency" / "fpga.pt").exists():
        with pytest.raises(DataError, match=r"eyeriss.*fpga.*raspi4.*help_fbnet_lodo"):
            made.pool()
        return
    pool = made.pool()
    few = name.startswith("pool_")  # measured by us, and small
    for chosen in made.rounds:
        sources = made.source_pool(pool, chosen)
        assert np.isfinite(sources.latencies_ms).any(axis=1).all()
        assert np.isfinite(sources.latencies_ms).sum(axis=0).min() >= (20 if few else 500)
        for target in (*chosen.targets, *chosen.validation):
            references = made.reference_rows(pool, target)
            assert len(references) >= (20 if few else 500), "half of them must leave ten to choose"
            for query in made.queries:
                rows = made.query_rows(pool, target, query)
                assert np.isfinite(pool.column(target)[np.concatenate([references, rows])]).all()
                assert len(rows) >= (15 if few else 400)


def test_help_nasbench201_is_the_published_protocol(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = load("help_nasbench201", data_root, monkeypatch)
    pool = made.pool()
    (only,) = made.rounds
    assert (len(only.sources), len(only.validation), len(only.targets)) == (9, 4, 6)
    assert len(made.source_pool(pool, only)) == 900
    assert made.query_rows(pool, "fpga").tolist() == list(range(900, 15625))
    trim = made.query_rows(pool, "raspi4", "trim")
    assert len(trim) == 800
    inside, all_of_it = pool.column("raspi4")[trim], pool.column("raspi4")[900:1900]
    assert (all_of_it < inside.min()).sum() == (all_of_it > inside.max()).sum() == 100
    thirteen = load("help_nasbench201_13", data_root, monkeypatch).rounds[0]
    assert set(thirteen.sources) == {*only.sources, *only.validation}
    assert thirteen.targets == only.targets


def test_hard_splits(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (gpus,) = load("help_nasbench201_gpus_only", data_root, monkeypatch).rounds
    assert {card(s) for s in (*gpus.sources, *gpus.validation)} <= CARD
    assert not {card(s) for s in gpus.targets} & CARD
    kinds = load("help_nasbench201_without_family", data_root, monkeypatch)
    everything = {s for r in kinds.rounds for s in r.targets}
    assert everything == set(kinds.pool().settings)
    for chosen in kinds.rounds:
        assert {*chosen.sources, *chosen.targets} == everything


def test_the_raspberry_pi_is_scored_on_measured_cells(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    made = load("hwnas360_pi5_onnx", data_root, monkeypatch)
    pool = made.pool()
    assert len(made.query_rows(pool, "pi5_onnx")) == 6466
    assert made.query_rows(pool, "pi5_onnx", "unseen").min() >= 900
