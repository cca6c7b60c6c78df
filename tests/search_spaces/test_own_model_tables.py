"""Costs and features of a user's own model: tables from one trace equal the traces of the networks themselves."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import relu

from gnomon.search_spaces.graph_costs import module_costs
from gnomon.search_spaces.graph_encoded import GRAPH_FEATURES, GraphEncodedSpace
from gnomon.search_spaces.own_model import OwnModel

NETWORKS = 8


class PreActivation(nn.Module):
    """What its norm is fused into depends on who else reads its input, and so on the blocks that are left out."""

    def __init__(self, channels, inner):
        super().__init__()
        self.norm, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, inner, 3, padding=1)
        self.inner_norm, self.conv2 = nn.BatchNorm2d(inner), nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(relu(self.inner_norm(self.conv1(relu(self.norm(x))))))


class PreActivations(nn.Module):
    """Two runs with nothing but a norm in between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3)
        self.first, self.norm = nn.Sequential(PreActivation(8, 16), PreActivation(8, 16)), nn.BatchNorm2d(8)
        self.second, self.last = nn.Sequential(PreActivation(8, 24)), nn.BatchNorm2d(8)
        self.out = nn.Linear(8, 4)

    def forward(self, x):
        x = self.second(relu(self.norm(self.first(self.stem(x)))))
        return self.out(relu(self.last(x)).mean((2, 3)))


class UNet(nn.Module):
    """Values that live through whole runs: how much memory is needed depends on many decisions."""

    def __init__(self):
        super().__init__()
        self.stem, self.down = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, 2, 1)
        self.first = nn.Sequential(PreActivation(8, 16), PreActivation(8, 16))
        self.low, self.up = nn.Sequential(PreActivation(8, 8)), nn.Upsample(scale_factor=2)
        self.second, self.out = PreActivation(8, 40), nn.Linear(16, 4)

    def forward(self, x):
        x = self.stem(x)
        y = self.first(x)
        z = self.second(self.up(self.low(self.down(y))) + y + x)
        return self.out(torch.cat([z, y], 1).mean((2, 3)))


class Group(nn.Module):
    """A residual block of residual blocks."""

    def __init__(self):
        super().__init__()
        self.body, self.conv = nn.Sequential(PreActivation(8, 16)), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        return x + self.conv(self.body(x))


class Nested(nn.Module):
    """With frozen weights and some that nothing uses."""

    def __init__(self):
        super().__init__()
        self.stem, self.groups = nn.Conv2d(1, 8, 3), nn.Sequential(Group(), Group())
        self.out, self.unused = nn.Linear(8, 4), nn.Linear(3, 3)
        self.stem.weight.requires_grad_(False)

    def forward(self, x):
        return self.out(self.groups(self.stem(x)).mean((2, 3)))


class Depthwise(nn.Module):
    """Kernels and channels of one layer, behind a gate."""

    def __init__(self):
        super().__init__()
        self.expand, self.norm = nn.Conv2d(4, 16, 1), nn.BatchNorm2d(16)
        self.spatial, self.project = nn.Conv2d(16, 16, 5, padding=2, groups=16), nn.Conv2d(16, 4, 1)
        self.squeeze, self.excite = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)

    def forward(self, x):
        y = relu(self.spatial(nn.functional.hardswish(self.norm(self.expand(x)))))
        y = y * torch.sigmoid(self.excite(relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + self.project(y)


def bottlenecks():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), Depthwise(), Depthwise(), nn.MaxPool2d(2), nn.ReLU(), Depthwise(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


@pytest.fixture(scope="module", params=["PreActivations", "UNet", "Nested", "bottlenecks"])
def space(request):
    return OwnModel({"_target_": f"{__name__}.{request.param}"}, (1, 10, 10))


@pytest.fixture(scope="module")
def rows(space):
    """Random networks, the ends, and every run left out by itself."""
    given = space.named["given"]
    shallow = [{**given, d.name: 0} for d in space.decisions if d.name.endswith(".depth")]
    active = [{name: value for name, value in config.items() if _is_active(space, name, config)} for config in shallow]
    configs = [*space.named.values(), *active]
    random = space.sample(NETWORKS, np.random.default_rng(3))
    return np.concatenate([random, *(space.genotype(config)[None] for config in configs)])


def _is_active(space, name, config):
    decision = space.decisions[space.algebra.index[name]]
    return all(config[parent] in allowed for parent, allowed in decision.active_when.items())


def test_costs_are_those_of_the_networks(space, rows):
    columns = space.costs(rows).columns()
    for index, row in enumerate(rows):
        counted = module_costs(space.build(space.config(row)), space.workload.input_shape)
        assert {name: column[index] for name, column in columns.items()} == counted, space.config(row)


def test_features_are_those_of_the_executed_graphs(space, rows):
    traced = GraphEncodedSpace.encode(space, rows)
    ours = dict(zip(space.feature_names, space.encode(rows).T, strict=True))
    for name, column in zip(GRAPH_FEATURES, traced.T, strict=True):
        if not name.startswith("path_"):
            np.testing.assert_allclose(ours.get(name, np.zeros(len(rows))), column, rtol=1e-5, err_msg=name)
    np.testing.assert_array_equal(space.execution_counts(rows), GraphEncodedSpace.execution_counts(space, rows))


def test_of_nested_blocks_the_innermost_can_go():
    space = OwnModel({"_target_": f"{__name__}.Nested"}, (1, 10, 10))
    assert space.parts.runs == (("groups.0.body.0",), ("groups.1.body.0",))


def test_looking_up_traces_nothing(space, monkeypatch):
    from gnomon.search_spaces import graph_costs, own_model_graph

    rows = space.sample(2000, np.random.default_rng(4))
    assert space.tables is space.tables
    for module in (graph_costs, own_model_graph):
        monkeypatch.setattr(module, "traced", None)
    monkeypatch.setattr(type(space), "build", None)
    assert len(space.costs(rows).macs) == len(space.encode(rows)) == len(space.execution_counts(rows)) == 2000
