"""Readers of published tables: on small files in upstream's format, and on the real ones if present."""

from __future__ import annotations

import builtins
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnomon.errors import DataError, DependencyError
from gnomon.records.data_root import data_path
from gnomon.records.data_root import data_root as default_root
from gnomon.records.tables import help_nasbench201, hwnas360, nasbench_macro
from gnomon.records.torch_files import load_plain
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELLS = [
    "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|".format(*ops)
    for ops in itertools.islice(itertools.product(OPS, repeat=6), 0, 15625, 1300)
]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GNOMON_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def help_folder(root: Path) -> Path:
    folder = root / "help" / "nasbench201"
    (folder / "latency").mkdir(parents=True)
    shuffled = CELLS[::-1]
    torch.save({cell: i for i, cell in enumerate(shuffled)}, folder / "str_arch2idx.pt")
    torch.save([1.5 + i for i in range(len(CELLS))], folder / "latency" / "board.pt")
    torch.save([np.float64(2 + i) for i in range(len(CELLS) - 2)], folder / "latency" / "short.pt")
    torch.save([float("nan"), -1, 0, *range(3, len(CELLS))], folder / "latency" / "gaps.pt")
    return folder


def genotypes_of(cells: list[str]) -> Any:
    return np.stack([NASBench201().from_arch_string(cell) for cell in cells])


def test_help_maps_every_cell_to_its_latency(help_folder: Path) -> None:
    table = help_nasbench201()
    assert sorted(table.columns) == ["board", "gaps", "short"]
    found = table.lookup(genotypes_of(CELLS), "board")
    np.testing.assert_array_equal(found, [1.5 + i for i in range(len(CELLS))][::-1])
    assert "HELP" in table.source


def test_help_says_what_is_missing(help_folder: Path) -> None:
    table = help_nasbench201(help_folder, devices=["gaps", "short"])
    assert list(table.columns) == ["gaps", "short"]
    assert table.notes == {
        "gaps": f"3 of {len(CELLS)} architectures have no latency",
        "short": f"2 of {len(CELLS)} architectures have no latency",
    }
    assert np.isnan(table.columns["gaps"][:3]).all()
    np.testing.assert_array_equal(table.columns["gaps"][3:], np.arange(3, len(CELLS)))
    assert np.isnan(table.columns["short"][-2:]).all()


def test_help_unknown_device(help_folder: Path) -> None:
    with pytest.raises(DataError, match=r"devices=\['toaster'\].*allowed: board, gaps, short"):
        help_nasbench201(devices=["board", "toaster"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("str_arch2idx.pt", {"|none~0|": 0}, "not a NAS-Bench-201 cell"),
        ("str_arch2idx.pt", {CELLS[0]: 0, CELLS[1].replace("none", "conv_7x7"): 1}, "conv_7x7"),
        ("str_arch2idx.pt", {CELLS[0]: 0, CELLS[1]: 5}, "does not number cells"),
        ("str_arch2idx.pt", [1, 2], "does not number cells"),
        ("latency/board.pt", [1.0] * 1000, "more latencies than there are architectures"),
        ("latency/board.pt", {"a": 1}, "not a list of latencies"),
        ("latency/board.pt", 3, "not a list of latencies"),
    ],
)
def test_help_malformed_files(file: str, content: Any, message: str, help_folder: Path) -> None:
    torch.save(content, help_folder / file)
    with pytest.raises(DataError, match=message):
        help_nasbench201()


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_files_that_would_run_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save([Bomb()], tmp_path / "bomb.pt")
    (tmp_path / "text.pt").write_text("no torch file")
    for name in ("bomb.pt", "text.pt"):
        with pytest.raises(DataError, match=f"cannot read .*{name}") as caught:
            load_plain(tmp_path / name)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


# ---- HW-NAS-Bench-360 ---------------------------------------------------------------------------


@pytest.fixture
def parquet(help_folder: Path, root: Path) -> Path:
    """Cells 0 to 7 on pi5: 1 and 2 copied from 0, 5 failed; and one row of another device."""
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    n = 8
    columns = {
        "arch_idx": [*range(n), 0],
        "rep_arch_idx": [0, 0, 0, *range(3, n), 0],
        "device": ["pi5"] * n + ["phone"],
        "framework": ["onnx"] * (n + 1),
        "task": ["cifar100"] * (n + 1),
        "lat_ms_median": [10.0 + i for i in range(n)] + [99.0],
        "lat_ms_var": [0.1] * (n + 1),
        "energy_mj": [20.0 + i for i in range(n)] + [99.0],
        "accuracy": [50.0 + i for i in range(n)] + [1.0],
        "status": ["ok"] * 5 + ["error"] + ["ok"] * 3,
    }
    path = root / "hwnas360" / "dataset.parquet"
    path.parent.mkdir()
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_hwnas360_keeps_measured_latencies_and_all_accuracies(parquet: Path) -> None:
    table = hwnas360()
    order = genotypes_of(CELLS[::-1][:8])
    nan = np.nan
    np.testing.assert_array_equal(table.lookup(order, "latency_ms"), [10, nan, nan, 13, 14, nan, 16, 17])
    np.testing.assert_array_equal(table.lookup(order, "energy_mj"), [20, nan, nan, 23, 24, nan, 26, 27])
    np.testing.assert_allclose(table.lookup(order, "accuracy"), np.arange(50, 58) / 100)
    assert table.notes["latency_ms"] == "2 copied and 1 failed of 8 cells left out"


def test_hwnas360_other_rows(parquet: Path) -> None:
    table = hwnas360(device="phone")
    assert table.columns["latency_ms"].tolist() == [99.0]
    with pytest.raises(DataError, match=r"no such rows.*allowed: phone/onnx/cifar100, pi5/onnx/cifar100"):
        hwnas360(device="toaster")


def test_hwnas360_damaged_and_other_files(parquet: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    content = parquet.read_bytes()
    parquet.write_bytes(content[:-50])
    with pytest.raises(DataError, match=r"cannot read .*dataset\.parquet"):
        hwnas360()
    pyarrow.parquet.write_table(pyarrow.table({"arch_idx": [1], "accuracy": [2.0]}), parquet)
    with pytest.raises(DataError, match="lacks columns"):
        hwnas360()


def test_hwnas360_without_pyarrow(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "hwnas360").mkdir()
    (root / "hwnas360" / "dataset.parquet").write_bytes(b"")
    importing = builtins.__import__

    def without_pyarrow(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return importing(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(DependencyError, match=r"pip install 'gnomon-nas\[tables\]'"):
        hwnas360()


# ---- NAS-Bench-Macro ----------------------------------------------------------------------------


def macro_entry(*accuracies: float) -> dict[str, Any]:
    return {"test_acc": list(accuracies), "mean_acc": 0, "std": 0, "params": 100, "flops": 2000}


def write_macro(root: Path, entries: Any) -> Path:
    path = root / "nasbench_macro" / "nas-bench-macro_cifar10.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(entries))
    return path


def test_macro_digits_are_operations(root: Path) -> None:
    write_macro(root, {"02112000": macro_entry(90, 91, 92), "00000000": macro_entry(50, 50, 50)})
    table = nasbench_macro()
    digits = {"0": "identity", "1": "mb3_k3", "2": "mb6_k5"}
    space = NASBenchMacro()
    config = {d.name: digits[c] for d, c in zip(space.decisions, "02112000", strict=True)}
    row = space.genotype(config)[None]
    assert table.lookup(row, "accuracy").tolist() == pytest.approx([0.91])
    assert table.lookup(row, "accuracy_std").tolist() == pytest.approx([np.std([0.9, 0.91, 0.92])])
    assert table.lookup(row, "params").tolist() == [100]
    assert table.lookup(row, "flops").tolist() == [2000]
    missing = space.genotype(space.named["all_mb3_k3"])[None]
    assert np.isnan(table.lookup(missing, "accuracy")).all()


@pytest.mark.parametrize(
    "entries",
    [{"0211": macro_entry(1)}, {"0211200x": macro_entry(1)}, {"03000000": macro_entry(1)}, {"00000000": {}}, [1], {}],
    ids=["short", "letter", "digit", "no_accuracy", "list", "empty"],
)
def test_macro_malformed(entries: Any, root: Path) -> None:
    path = write_macro(root, entries)
    with pytest.raises(DataError, match=path.name):
        nasbench_macro()


# ---- Where data are -----------------------------------------------------------------------------


@pytest.mark.parametrize("reader", [help_nasbench201, hwnas360, nasbench_macro])
def test_missing_data_says_what_to_set(reader: Any, root: Path) -> None:
    with pytest.raises(DataError, match=f"no such data: {root}.*Set GNOMON_DATA"):
        reader()
    with pytest.raises(DataError, match=r"path='/no/such/folder'"):
        reader(path="/no/such/folder")


def test_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GNOMON_DATA", str(tmp_path))
    assert default_root() == tmp_path
    (tmp_path / "x").mkdir()
    assert data_path("x") == tmp_path / "x"
    assert data_path("y", tmp_path) == tmp_path
    monkeypatch.delenv("GNOMON_DATA")
    assert default_root().parts[-2:] == ("shared", "data")


# ---- The real tables ----------------------------------------------------------------------------


def test_real_help(data_root: Path) -> None:
    help_nasbench201(data_root / "help" / "nasbench201", devices=["raspi4"])  # imports and caches of the disk
    start = time.process_time()
    table = help_nasbench201(data_root / "help" / "nasbench201")
    assert time.process_time() - start < 4
    assert table.genotypes.shape == (15625, 6)
    assert len(table.columns) == 27
    assert not table.notes
    # Checked against the files by another road: cell string to number to list.
    index = load_plain(data_root / "help" / "nasbench201" / "str_arch2idx.pt")
    raspi4 = load_plain(data_root / "help" / "nasbench201" / "latency" / "raspi4.pt")
    cells = list(index)[::1000]
    np.testing.assert_array_equal(
        table.lookup(genotypes_of(cells), "raspi4"), [float(raspi4[index[cell]]) for cell in cells]
    )


def test_real_hwnas360(data_root: Path) -> None:
    pytest.importorskip("pyarrow")
    table = hwnas360(
        data_root / "hwnas360" / "dataset.parquet", index_path=data_root / "help" / "nasbench201" / "str_arch2idx.pt"
    )
    assert table.genotypes.shape == (15625, 6)
    assert np.isfinite(table.columns["latency_ms"]).sum() == 6466
    assert np.isfinite(table.columns["energy_mj"]).sum() == 6466
    accuracy = table.columns["accuracy"]
    assert accuracy.min() == pytest.approx(0.01)
    assert accuracy.max() == pytest.approx(0.7351, abs=1e-4)
    # A second source: what HELP's repository says of the cells that it found.
    path = data_root / "help" / "nasbench201" / "arch_generated_by_metad2a.txt"
    rows = [line.split(", ") for line in path.read_text().splitlines() if line.startswith("|")]
    found = table.lookup(genotypes_of([row[0] for row in rows]), "accuracy")
    np.testing.assert_allclose(found, [float(row[1]) / 100 for row in rows], atol=1e-6)


def test_real_macro_agrees_with_the_space(data_root: Path) -> None:
    """Parameters and multiply-accumulates that upstream counted are those of the networks built here."""
    table = nasbench_macro(data_root / "nasbench_macro" / "nas-bench-macro_cifar10.json")
    assert table.genotypes.shape == (6561, 8)
    costs = table.space.costs(table.genotypes)
    np.testing.assert_array_equal(table.columns["params"], costs.parameters)
    np.testing.assert_array_equal(table.columns["flops"], costs.macs)
    best = int(np.argmax(table.columns["accuracy"]))
    assert table.columns["accuracy"][best] == pytest.approx(0.9313, abs=1e-4)
