"""Graphs of operations, from torch modules and from ONNX files, as built and as executed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.errors import SpaceError
from gnomon.predictors import GnomonPredictor
from gnomon.search_spaces import Decision, SearchSpace, Workload
from gnomon.search_spaces.costs import Costs
from gnomon.search_spaces.graph_costs import module_costs
from gnomon.search_spaces.graph_encoded import GRAPH_FEATURES, GraphEncodedSpace
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.operations import Operation, OperationGraph, executed, features
from gnomon.search_spaces.operations_onnx import onnx_operations
from gnomon.search_spaces.operations_torch import module_operations
from gnomon.testing import SearchSpaceSuite


class Residual(nn.Module):
    """Has everything that is folded, removed or fused."""

    def __init__(self, channels=4):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.dead = nn.Conv2d(channels, channels, 5, padding=2)
        self.point = nn.Conv2d(channels, channels, 1)
        self.same = nn.Identity()
        self.head = nn.Linear(channels, 2)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        self.dead(x)
        y = self.point(self.same(x)) + x + torch.zeros_like(x)
        return self.head(torch.relu(y).mean((2, 3)))


def kinds(graph):
    return [operation.kind for operation in graph.operations]


def test_a_runtime_removes_folds_and_fuses():
    graph = module_operations(Residual(), (3, 8, 8))
    assert kinds(graph).count("dense") == 2
    assert kinds(executed(graph)) == ["dense", "pointwise", "add", "mean", "linear"]


def test_features_of_a_graph_by_hand():
    values = features(executed(module_operations(Residual(), (3, 8, 8))))
    area = 64
    assert values["dense_macs"] == area * 4 * 3 * 9
    assert values["dense_cio"] == area * (3 + 4)
    assert values["pointwise_macs"] == area * 4 * 4
    assert values["parameters"] == 4 * 3 * 9 + 2 * 4 + 4 * 4 + 4 + 4 * 2 + 2
    assert values["kernels"] == 5
    assert values["path_kernels"] == 5
    assert values["macs"] == values["path_macs"] == values["dense_macs"] + values["pointwise_macs"] + 8
    assert values["traffic"] == area * (3 + 4) + 2 * area * 4 + 3 * area * 4 + area * 4 + 4 + 4 + 2


def test_an_activation_that_others_pass_by_is_not_fused():
    def op(name, kind, *reads):
        return Operation(name, kind, reads, (1, 4), 4)

    graph = OperationGraph((op("a", "dense", "x"), op("b", "activation", "a"), op("c", "add", "a", "b")), ("c",))
    assert kinds(executed(graph)) == ["dense", "activation", "add"]


def test_parallel_branches_do_not_lengthen_the_critical_path():
    space = NASBench201()
    wide = space.from_arch_string(
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|nor_conv_3x3~0|skip_connect~1|skip_connect~2|"
    )
    deep = space.from_arch_string("|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|none~0|none~1|nor_conv_3x3~2|")
    paths = [features(executed(module_operations(space.build(space.config(row)), (3, 32, 32)))) for row in (wide, deep)]
    assert paths[0]["dense_convs"] == paths[1]["dense_convs"]
    assert paths[1]["path_macs"] > 2 * paths[0]["path_macs"]


def test_costs_agree_with_the_other_counter():
    model = Residual()
    counted, costs = features(module_operations(model, (3, 8, 8))), module_costs(model, (3, 8, 8))
    assert counted["macs"] == costs["macs"]
    assert counted["parameters"] == costs["parameters"]


def test_live_counts_of_nasbench201_equal_the_executed_graphs():
    space = NASBench201()
    rows = space.sample(12, np.random.default_rng(3))
    rows[0] = space.from_arch_string("|nor_conv_3x3~0|+|nor_conv_1x1~0|none~1|+|nor_conv_3x3~0|none~1|none~2|")
    counts = space.execution_counts(rows)
    for row, (built, live, _) in zip(rows, counts, strict=True):
        graph = module_operations(space.build(space.config(row)), (3, 32, 32))
        for expected, values in ((built, features(graph)), (live, features(executed(graph)))):
            # 15 cells; stem and reductions have 5 dense and 2 pointwise convolutions and 2 pools.
            assert values["dense_convs"] == 15 * expected[2] + 5
            assert values.get("pointwise_convs", 0) == 15 * expected[1] + 2
            assert values.get("pools", 0) == 15 * expected[3] + 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "space", [MobileCNN((1, 28, 28), 10, width=0.5, blocks=4), NASBench201()], ids=lambda s: s.name
)
def test_an_onnx_file_has_the_features_of_its_module(space, tmp_path):
    from gnomon.export import export_deployable

    row = space.sample(1, np.random.default_rng(1))[0]
    deployable = space.deployable(space.config(row))
    path = export_deployable(deployable, tmp_path).graphs["main"].onnx_path
    ours = features(executed(module_operations(space.build(space.config(row)), space.workload.input_shape)))
    theirs = features(executed(onnx_operations(path)))
    same = [
        name for name in ours if name.endswith(("_convs", "_macs", "_cio", "shortcuts", "pools")) and "path" not in name
    ]
    assert path is not None
    assert len(same) > 6
    for name in same:
        assert theirs.get(name, 0.0) == pytest.approx(ours[name]), name


def test_what_is_no_onnx_is_refused(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(SpaceError, match="ONNX"):
        onnx_operations(tmp_path / "no.onnx")


# ---- A user's own space ---------------------------------------------------------------------------


class Towers(GraphEncodedSpace):
    """Width and depth of a small network; nothing about costs but the networks themselves."""

    name = "towers"

    def __init__(self):
        decisions = (Decision("width", (4, 8, 16, 24)), Decision("depth", (1, 2, 3, 4)), Decision("kernel", (1, 3)))
        super().__init__(decisions, Workload((3, 8, 8)))

    def arguments(self):
        return {}

    def build(self, config):
        config = self.config(self.genotype(config))
        width, kernel = int(config["width"]), int(config["kernel"])
        layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
        for _ in range(int(config["depth"])):
            layers += [nn.Conv2d(width, width, kernel, padding=kernel // 2), nn.BatchNorm2d(width), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))

    def costs(self, genotypes):
        counted = [module_costs(self.build(self.config(row)), self.workload.input_shape) for row in genotypes]
        names = ("parameters", "macs", "cio", "peak_activation_bytes")
        return Costs(*(np.array([c[name] for c in counted]) for name in names))


class TestTowers(SearchSpaceSuite):
    classes = 5
    population = 60
    models = 3

    @pytest.fixture
    def space(self):
        return Towers()


def test_a_users_own_space_is_predicted_from_its_modules_alone():
    space: SearchSpace = Towers()
    predictor = GnomonPredictor(space)
    rows = space.enumerate()
    columns = dict(zip(GRAPH_FEATURES, space.encode(rows).T.astype(float), strict=True))
    latency = 0.02 * columns["kernels"] + columns["dense_macs"] / 2e6 + columns["pointwise_macs"] / 1e6
    measured = predictor.references(8)
    index = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in measured]
    mean, _ = predictor.adapt(measured, latency[index]).predict(rows)
    assert np.corrcoef(mean, latency)[0, 1] > 0.97
