"""Shallow networks for small images: the contract, the layers, the sizes."""

import numpy as np
import pytest

from gnomon.conf.compose import compose
from gnomon.errors import SpaceError
from gnomon.search.instantiate import instantiate
from gnomon.search.setup import make_space
from gnomon.search_spaces.graph_costs import module_costs
from gnomon.search_spaces.small_cnn import SmallCNN
from gnomon.search_spaces.small_cnn_layers import OPS, make_layer
from gnomon.testing import SearchSpaceSuite


class TestSmallCNN(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return SmallCNN((1, 28, 28), classes=10)


class TestTinyImages(SearchSpaceSuite):
    """Strides are dropped, filters merge."""

    classes = 3

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return SmallCNN((2, 8, 10), classes=3, width=0.2, stages=2)


@pytest.fixture(scope="module")
def space():
    return SmallCNN((3, 32, 32), classes=10)


def test_random_networks_cost_what_their_modules_cost(space):
    """Of every number of stages, counted from the graph."""
    rows = space.sample(40, np.random.default_rng(0))
    costs = space.costs(rows).columns()
    assert set(rows[:, space.algebra.index["stages"]]) == {0, 1, 2, 3}
    for number, row in enumerate(rows):
        counted = module_costs(space.build(space.config(row)), (3, 32, 32))
        assert {name: column[number] for name, column in costs.items()} == counted


@pytest.mark.parametrize(("stem_stride", "sizes"), [(2, [16, 16, 8, 4]), (4, [8, 8, 4, 4])])
def test_stages_halve_the_map_down_to_four(space, stem_stride, sizes):
    geometry = space.geometry(stem_stride)
    assert [size[0] for size, _ in geometry] == sizes
    assert [size[0] // stride for size, stride in geometry] == [*sizes[1:], 4]


def test_a_network_of_one_stage_and_one_layer(space):
    config = {**space.named["conv"], "stages": 1, "stage1.layers": 1}
    config = {name: choice for name, choice in config.items() if not name.startswith(("stage2", "stage3"))}
    (layers,) = space.stage_specs(config)
    assert [conv.kind for layer in layers for conv in layer.convs] == ["dense"]


def test_genes_of_absent_stages_do_not_matter(space):
    row = space.named_genotype("separable")
    other = row.copy()
    other[space.algebra.index["stage4.filters"]] = 2
    np.testing.assert_array_equal(space.canonical(other[None])[0], row)


@pytest.mark.parametrize(
    ("op", "kinds", "activations"),
    [
        ("conv", ["dense"], [True]),
        ("separable", ["depthwise", "pointwise"], [True, True]),
        ("mbconv3", ["pointwise", "depthwise", "pointwise"], [True, True, False]),
        ("fused3", ["dense", "pointwise"], [True, False]),
    ],
)
def test_operations(op, kinds, activations):
    layer = make_layer(op, 5, 0.25, 16, 16, 1, "hardswish")
    assert [conv.kind for conv in layer.convs] == kinds
    assert [conv.relu for conv in layer.convs] == activations
    assert layer.shortcut == ("identity" if op.endswith("3") else "none")
    assert layer.squeeze == max(8, layer.convs[layer.spatial].out_channels // 4)
    assert make_layer(op, 3, 0.0, 16, 24, 1, "relu").shortcut == "none"


def test_an_unknown_operation_is_refused():
    with pytest.raises(SpaceError, match="separable"):
        make_layer("pool", 3, 0.0, 8, 8, 1, "relu")


@pytest.mark.parametrize("stages", [0, 7, True, 2.0, "3"])
def test_numbers_of_stages_out_of_range_are_refused(stages):
    with pytest.raises(SpaceError, match="stages"):
        SmallCNN(stages=stages)


def test_named_networks_are_of_one_operation(space):
    assert next(iter(space.named)) == "separable"
    assert set(space.named) == set(OPS)


def test_the_experiment_is_made_of_what_exists():
    config = compose("search", ["experiment=small_cnn", "task=digits"])
    space = make_space(config.space, instantiate(config.task, "task"), [])
    assert isinstance(space, SmallCNN)
    assert config.objective.reference in space.named
    assert space.stem_strides == (1, 2)  # 8x8
