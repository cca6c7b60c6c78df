"""Readers of pools: on small files in upstream's format, and on the real ones if present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnomon.errors import DataError
from gnomon.records import DevicePool
from gnomon.records.pools import (
    hat_pool,
    help_fbnet_pool,
    help_nasbench201_pool,
    help_ofa_pool,
    help_pool,
    hwnas360_pool,
    join_pools,
    yolobench_pool,
)
from gnomon.records.tables import help_fbnet, help_ofa, nasbench_macro
from gnomon.records.torch_files import load_plain
from gnomon.records.yolobench_pool import LATENCY_COLUMNS, name_features
from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.nasbench201 import NASBench201

HAT_HEADER = (
    "encoder_embed_dim,encoder_layer_num,encoder_ffn_embed_dim_avg,encoder_self_attention_heads_avg,decoder_embed_dim,"
    "decoder_layer_num,decoder_ffn_embed_dim_avg,decoder_self_attention_heads_avg,decoder_ende_attention_heads_avg,"
    "decoder_arbitrary_ende_attn_avg,latency_mean_encoder,latency_mean_decoder,latency_std_encoder,latency_std_decoder"
)


@pytest.fixture
def fbnet_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fbnet"
    (folder / "latency").mkdir(parents=True)
    torch.save([[i] * 22 for i in range(9)], folder / "arch.pt")
    torch.save([10.0 + i for i in range(9)], folder / "latency" / "board.pt")
    torch.save([np.float64(20 + i) for i in range(7)], folder / "latency" / "short.pt")
    return folder


def sub_network(r: int, last_kernel: int = 3) -> dict[str, Any]:
    return {"ks": [3] * 19 + [last_kernel], "e": [4] * 20, "d": [2, 3, 4, 2, 3], "r": np.int64(r)}


@pytest.fixture
def ofa_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "ofa"
    (folder / "latency").mkdir(parents=True)
    archs = [sub_network(128), sub_network(160), sub_network(224)]
    torch.save({"dataset": "imagenet", "num_classes": 1000, "arch": archs}, folder / "ofa_archs.pt")
    torch.save([3.0, 4.0, 5.0], folder / "latency" / "card_64.pt")
    return folder


# ---- HELP ---------------------------------------------------------------------------------------


def test_fbnet_rows_are_upstreams_in_its_order(fbnet_folder: Path) -> None:
    pool = help_fbnet_pool(fbnet_folder)
    assert pool.settings == ("board", "short")
    assert pool.space is not None
    assert pool.genotypes is not None
    assert pool.space.config(pool.genotypes[8])["layer22"] == "skip"
    np.testing.assert_array_equal(pool.column("board"), 10.0 + np.arange(9))
    np.testing.assert_array_equal(pool.column("short"), [*range(20, 27), np.nan, np.nan])
    assert pool.notes == {"short": "2 of 9 architectures have no latency"}


def test_fbnet_reads_upstreams_other_form(fbnet_folder: Path) -> None:
    rows = load_plain(fbnet_folder / "arch.pt")
    before = help_fbnet_pool(fbnet_folder).genotypes
    (fbnet_folder / "arch.pt").unlink()
    torch.save({"arch": [{"op_idx_list": row} for row in rows]}, fbnet_folder / "metainfo.pt")
    np.testing.assert_array_equal(help_fbnet_pool(fbnet_folder).genotypes, before)


def test_ofa_settings_are_devices(ofa_folder: Path) -> None:
    pool = help_ofa_pool(ofa_folder)
    assert pool.settings == ("card_64",)
    assert pool.space is not None
    assert pool.genotypes is not None
    assert [pool.space.config(row)["resolution"] for row in pool.genotypes] == [128, 160, 224]


def test_help_is_what_lies_in_the_folder(fbnet_folder: Path, ofa_folder: Path, tmp_path: Path) -> None:
    assert help_pool(fbnet_folder).space.name == "fbnet"  # type: ignore[union-attr]
    assert help_pool(ofa_folder, ["card_64"]).space.name == "ofa_mobilenet"  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"none of HELP's data sets.*str_arch2idx\.pt"):
        help_pool(tmp_path)


def test_fbnet_and_ofa_are_tables_for_recorded_devices_too(fbnet_folder: Path, ofa_folder: Path) -> None:
    table = help_fbnet(fbnet_folder, ["board"])
    assert table.lookup(FBNet().genotypes_from_indices(np.full((1, 22), 3)), "board") == [13.0]
    assert list(help_ofa(ofa_folder).columns) == ["card_64"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("arch.pt", [[0] * 21], "does not hold FBNet"),
        ("arch.pt", [[9] * 22], "does not hold FBNet"),
        ("arch.pt", {"archs": []}, "does not hold FBNet"),
        ("arch.pt", ["k3_e1"], "does not hold FBNet"),
        ("arch.pt", [[0] * 22] * 2, "architectures repeat"),
        ("latency/board.pt", [1.0] * 10, "more latencies than there are architectures"),
        ("latency/board.pt", {"a": 1.0}, "not a list of latencies"),
    ],
)
def test_damaged_fbnet_files(file: str, content: Any, message: str, fbnet_folder: Path) -> None:
    torch.save(content, fbnet_folder / file)
    with pytest.raises(DataError, match=message):
        help_fbnet_pool(fbnet_folder)


@pytest.mark.parametrize("content", [[1], {"arch": [{"ks": [3]}]}, {"arch": [sub_network(130)]}, {"arch": 3}])
def test_damaged_ofa_files(content: Any, ofa_folder: Path) -> None:
    torch.save(content, ofa_folder / "ofa_archs.pt")
    with pytest.raises(DataError, match="does not hold Once-for-All"):
        help_ofa_pool(ofa_folder)


def test_what_is_missing_is_named(fbnet_folder: Path, ofa_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"devices=\['toaster'\].*allowed: board, short"):
        help_fbnet_pool(fbnet_folder, ["toaster"])
    (fbnet_folder / "arch.pt").unlink()
    with pytest.raises(DataError, match=r"no architectures.*arch\.pt"):
        help_fbnet_pool(fbnet_folder)
    (ofa_folder / "latency" / "card_64.pt").unlink()
    with pytest.raises(DataError, match="no latencies in"):
        help_ofa_pool(ofa_folder)
    for reader in (help_pool, help_nasbench201_pool, help_fbnet_pool, help_ofa_pool, hat_pool, yolobench_pool):
        with pytest.raises(DataError, match="no such data"):
            reader(tmp_path / "nowhere")  # type: ignore[operator]


# ---- HAT ----------------------------------------------------------------------------------------


@pytest.fixture
def hat_folder(tmp_path: Path) -> Path:
    features = ",".join(map(str, range(10)))
    (tmp_path / "wmt_gpu_all.csv").write_text(f"{HAT_HEADER}\n{features},5,100,1,1\n{features},6,120,1,1\n")
    (tmp_path / "wmt_cpu_all.csv").write_text(f"{HAT_HEADER}\n{features},50,1000,1,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("part", "cpu", "gpu"), [("total", 1050, [105, 126]), ("encoder", 50, [5, 6]), ("decoder", 1000, [100, 120])]
)
def test_hat_tables_are_settings_below_each_other(part: Any, cpu: float, gpu: list[float], hat_folder: Path) -> None:
    pool = hat_pool(hat_folder, part)
    nan = np.nan
    assert pool.settings == ("wmt_cpu", "wmt_gpu")
    np.testing.assert_array_equal(pool.latencies_ms, [[cpu, nan], [nan, gpu[0]], [nan, gpu[1]]])
    assert pool.space is None
    assert pool.features is not None
    np.testing.assert_array_equal(pool.features, [np.arange(10)] * 3)
    assert pool.feature_names[0] == "encoder_embed_dim"


def test_damaged_hat_tables(hat_folder: Path) -> None:
    with pytest.raises(DataError, match="part='half'"):
        hat_pool(hat_folder, "half")  # type: ignore[arg-type]
    path = hat_folder / "wmt_cpu_all.csv"
    for text, message in [
        (HAT_HEADER.replace("_mean_", "_") + "\n", "lacks columns"),
        (HAT_HEADER + "\n", "no rows"),
        (HAT_HEADER + "\n" + ",".join(["x"] * 14), "cannot read"),
        (HAT_HEADER + "\n1,2", "cannot read"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=message):
            hat_pool(hat_folder)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot read"):
        hat_pool(hat_folder)


# ---- YOLOBench ----------------------------------------------------------------------------------


def test_yolobench_names_are_features() -> None:
    models = ["yolo5d67w25_256", "yolo8s_320", "yolo6m-d6w75_480", "yolo3d1w5_160"]
    features, names = name_features(models)
    assert names == ("family=yolo3", "family=yolo5", "family=yolo6m", "family=yolo8", "depth", "width", "resolution")
    np.testing.assert_allclose(
        features[:, 4:], [[2 / 3, 0.25, 256], [1 / 3, 0.5, 320], [0.6, 0.75, 480], [1, 0.5, 160]]
    )
    np.testing.assert_array_equal(features[:, :4].argmax(axis=1), [1, 3, 2, 0])


@pytest.mark.parametrize("model", ["resnet18", "yolo5d50w25_256", "yolo5x_256", "yolo5n", ""])
def test_other_models_are_refused(model: str) -> None:
    with pytest.raises(DataError, match="model_name"):
        name_features([model])


def test_yolobench_file(tmp_path: Path) -> None:
    path = tmp_path / "merged_results.csv"
    path.write_text(",".join([*LATENCY_COLUMNS.values(), "model_name"]) + "\n1,2,3,,5,yolo8n_160\n")
    pool = yolobench_pool(path)
    np.testing.assert_array_equal(pool.latencies_ms, [[1, 2, 3, np.nan, 5]])
    assert pool.settings == tuple(LATENCY_COLUMNS)


# ---- Pools ----------------------------------------------------------------------------------------


def small_pool(rows: list[int], **columns: list[float]) -> DevicePool:
    space = NASBench201()
    return DevicePool(
        tuple(columns), np.array(list(columns.values())).T, f"test {list(columns)}", space, space.enumerate()[rows]
    )


def test_joined_pools_share_rows() -> None:
    pool = join_pools([small_pool([5, 7, 9], a=[1, 2, 3], b=[4, 5, 6]), small_pool([9, 2, 5], c=[7, 8, 9])])
    nan = np.nan
    assert pool.settings == ("a", "b", "c")
    np.testing.assert_array_equal(pool.genotypes, NASBench201().enumerate()[[5, 7, 9, 2]])
    np.testing.assert_array_equal(pool.latencies_ms, [[1, 4, 9], [2, 5, nan], [3, 6, 7], [nan, nan, 8]])


def test_what_cannot_be_joined(hat_folder: Path, fbnet_folder: Path) -> None:
    one = small_pool([1], a=[1])
    with pytest.raises(DataError, match="no pools"):
        join_pools([])
    for other in (hat_pool(hat_folder), help_fbnet_pool(fbnet_folder)):
        with pytest.raises(DataError, match="one space"):
            join_pools([one, other])
    with pytest.raises(DataError, match="distinct"):
        join_pools([one, one])


def test_measured_rows_and_notes_follow_the_settings() -> None:
    nan = np.nan
    pool = small_pool([1, 2, 3], a=[1, nan, nan], b=[nan, nan, 2])
    pool = DevicePool(pool.settings, pool.latencies_ms, "s", pool.space, pool.genotypes, notes={"a": "x", "b": "y"})
    assert len(pool.measured()) == 2
    only = pool.select(["b"])
    assert dict(only.notes) == {"b": "y"}
    assert len(only.measured()) == 1


def test_a_table_without_latencies_is_no_pool(data_root: Path) -> None:
    with pytest.raises(DataError, match=r"accuracy.*no latencies"):
        DevicePool.from_table(nasbench_macro(data_root / "nasbench_macro" / "nas-bench-macro_cifar10.json"))


# ---- The real data ------------------------------------------------------------------------------


def test_real_help_nasbench201(data_root: Path) -> None:
    pool = help_nasbench201_pool(data_root / "help" / "nasbench201")
    assert pool.latencies_ms.shape == (15625, 27)
    assert np.isfinite(pool.latencies_ms).all()
    assert pool.column("raspi4").min() == pytest.approx(0.0113, abs=1e-4)  # cells without a path, as upstream has them
    assert set(np.mod(pool.column("pixel2"), 1)) == {0.0}
    raw = load_plain(data_root / "help" / "nasbench201" / "latency" / "gold_6226.pt")
    np.testing.assert_array_equal(pool.column("gold_6226"), np.array(raw, dtype=np.float64))


def test_real_help_fbnet(data_root: Path) -> None:
    pool = help_fbnet_pool(data_root / "help" / "fbnet")
    assert pool.latencies_ms.shape == (5000, 13)
    assert pool.genotypes is not None
    np.testing.assert_array_equal(pool.genotypes, load_plain(data_root / "help" / "fbnet" / "arch.pt"))
    # Published as additive: a sum over layers and blocks explains pixel3 (a lookup table) nearly perfectly.
    assert pool.space is not None
    features = np.c_[pool.space.encode(pool.genotypes), np.ones(len(pool))].astype(np.float64)
    weights = np.linalg.lstsq(features[:4000], pool.column("pixel3")[:4000], rcond=None)[0]
    error = features[4000:] @ weights - pool.column("pixel3")[4000:]
    assert np.abs(error).max() < 0.1 * pool.column("pixel3").std()


def test_real_help_ofa(data_root: Path) -> None:
    pool = help_ofa_pool(data_root / "help" / "ofa", ["titan_rtx_64"])
    assert pool.latencies_ms.shape == (5000, 1)
    assert pool.space is not None
    assert pool.genotypes is not None
    macs = pool.space.costs(pool.genotypes).macs
    assert np.corrcoef(macs, pool.column("titan_rtx_64"))[0, 1] > 0.95


def test_real_hwnas360(data_root: Path) -> None:
    pytest.importorskip("pyarrow")
    index = data_root / "help" / "nasbench201" / "str_arch2idx.pt"
    pool = hwnas360_pool(data_root / "hwnas360" / "dataset.parquet", index_path=index)
    assert pool.settings == ("pi5_onnx",)
    assert pool.latencies_ms.shape == (6466, 1)
    assert np.isfinite(pool.latencies_ms).all()
    assert "copied" in pool.notes["pi5_onnx"]


def test_real_hat_and_yolobench(data_root: Path) -> None:
    hat = hat_pool(data_root / "hat")
    assert hat.latencies_ms.shape == (8000, 4)
    np.testing.assert_array_equal(np.isfinite(hat.latencies_ms).sum(axis=0), 2000)
    assert hat.features is not None
    assert hat.features.shape == (8000, 10)
    parts = [hat_pool(data_root / "hat", part).latencies_ms for part in ("encoder", "decoder")]  # type: ignore[arg-type]
    np.testing.assert_allclose(parts[0] + parts[1], hat.latencies_ms)
    yolo = yolobench_pool(data_root / "yolobench" / "merged_results.csv")
    assert yolo.latencies_ms.shape == (572, 5)
    assert np.isfinite(yolo.latencies_ms).all()
    assert yolo.features is not None
    assert len(np.unique(yolo.features, axis=0)) == 572
