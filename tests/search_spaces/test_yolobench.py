"""YOLOBench as a space and a table: nothing is built, everything else is as in any space."""

import numpy as np
import pytest

from gnomon.errors import DataError, SpaceError
from gnomon.records.tables import yolobench
from gnomon.records.yolobench_pool import LATENCY_COLUMNS, yolobench_pool
from gnomon.records.yolobench_table import ACCURACY_COLUMNS
from gnomon.search_spaces.yolobench import FAMILIES, RESOLUTIONS, YOLOBench, detector
from gnomon.testing import SearchSpaceSuite

BUILT = (
    "equal_the_graphs", "costs_equal", "torchs_flop", "equal_the_modules", "models_", "bad_configs_are_not_built",
    "graph_runs", "answers_like_torch",
)  # fmt: skip


class TestYOLOBench(SearchSpaceSuite):
    @pytest.fixture
    def space(self, request):
        if any(part in request.node.name for part in BUILT):
            pytest.skip("nothing of this space can be built")
        return YOLOBench()


def test_space_is_exactly_the_published_detectors():
    space = YOLOBench()
    assert len(space.enumerate()) == 572 == 11 * sum(map(len, FAMILIES.values()))


def test_building_says_what_to_do():
    with pytest.raises(SpaceError, match="recorded_yolobench"):
        YOLOBench().build(detector("yolo8", 33, 25, 320))
    with pytest.raises(SpaceError, match="scale_yolo3"):
        YOLOBench().build(detector("yolo3", 33, 100, 320))


def test_nominal_costs_are_compound_scaling():
    space = YOLOBench()
    rows = np.stack(
        [space.genotype(detector("yolo8", *size)) for size in ((33, 25, 160), (33, 50, 160), (33, 25, 320))]
    )
    costs = space.costs(rows)
    np.testing.assert_allclose(costs.macs / costs.macs[0], [1, 4, 4])
    np.testing.assert_allclose(costs.parameters / costs.parameters[0], [1, 4, 1])
    full = space.costs(space.genotype(detector("yolo8", 100, 100, 480))[None])
    assert full.parameters[0] == 1
    assert full.macs[0] == pytest.approx((480 / 640) ** 2)


def write(folder, names):
    columns = (*ACCURACY_COLUMNS.values(), *LATENCY_COLUMNS.values())
    lines = [",".join((*columns, "model_name", "model_family"))]
    for i, name in enumerate(names):
        lines.append(",".join((*(str(0.1 * (i + 1) + 0.01 * j) for j in range(len(columns))), name, "YOLO")))
    path = folder / "merged_results.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_rows_are_looked_up_by_their_names(tmp_path):
    table = yolobench(write(tmp_path, ["yolo8n_160", "yolo6m-d6w25_480", "yolo5d1w75_224"]))
    wanted = [("yolo8", 33, 25, 160), ("yolo6m", 60, 25, 480), ("yolo5", 100, 75, 224)]
    rows = np.stack([table.space.genotype(detector(*each)) for each in wanted])
    np.testing.assert_array_equal(table.genotypes, rows)
    np.testing.assert_allclose(table.lookup(rows, "map_voc"), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(table.lookup(rows, "pi4_ort"), np.array([0.1, 0.2, 0.3]) + 0.12)
    assert set(table.settings) == set(LATENCY_COLUMNS)


@pytest.mark.parametrize("names", [["yolo8n_160", "yolo8d33w25_160"], ["yolo3d33w75_160"], ["yolo8n_170"], ["resnet"]])
def test_other_detectors_are_refused(tmp_path, names):
    with pytest.raises(DataError):
        yolobench(write(tmp_path, names))


def test_published_table(data_root):
    path = data_root / "yolobench" / "merged_results.csv"
    table = yolobench(path)
    assert len(table.genotypes) == 572
    assert all(np.isfinite(column).all() for column in table.columns.values())
    assert 0 < table.columns["map_voc"].min() < table.columns["map_voc"].max() < 1
    np.testing.assert_array_equal(np.unique(table.genotypes, axis=0), np.unique(table.space.enumerate(), axis=0))
    pool = yolobench_pool(path)
    for number, device in enumerate(pool.settings):
        np.testing.assert_array_equal(pool.latencies_ms[:, number], table.columns[device])
    resolutions = np.array([table.space.config(row)["resolution"] for row in table.genotypes])
    np.testing.assert_array_equal(resolutions, pool.features[:, -1])
    assert set(resolutions.tolist()) == set(RESOLUTIONS)
    for depth_or_width, column in (("macs", -3), ("macs", -2)):
        costs = table.space.costs(table.genotypes).columns()[depth_or_width]
        assert np.corrcoef(np.log(costs), np.log(pool.features[:, column]))[0, 1] > 0


@pytest.mark.slow
def test_recorded_search_from_the_command_line(data_root, tmp_path, monkeypatch, capsys):
    from gnomon import cli

    monkeypatch.setenv("GNOMON_DATA", str(data_root))
    overrides = ["experiment=yolobench", "study.evaluations=20", f"study.dir={tmp_path}"]
    assert cli.main(["search", *overrides, "device.column=openvino", "quality.column=map_coco"]) == 0
    assert "published latencies of openvino" in capsys.readouterr().out
