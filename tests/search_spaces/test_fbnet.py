"""FBNet's space: the contract, the blocks, the published networks and indices."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.fbnet import BLOCKS, FBNet, layer_specs
from gnomon.search_spaces.graph_costs import module_costs
from gnomon.search_spaces.layer_modules import ChannelShuffle
from gnomon.testing import SearchSpaceSuite


class TestFBNet(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return FBNet((1, 28, 28), classes=10, width=0.5, head_filters=128)


@pytest.fixture(scope="module")
def imagenet():
    return FBNet()


@pytest.mark.parametrize(
    ("name", "head", "macs", "params"),
    [("fbnet_a", 1504, 244.5, 4.3), ("fbnet_b", 1984, 291.1, 4.8), ("fbnet_c", 1984, 378.2, 5.5)],
)
def test_released_networks_are_as_large_as_the_authors_say(name, head, macs, params):
    """Figures of facebookresearch/mobile-vision, whose blocks differ in small ways."""
    space = FBNet(head_filters=head)
    costs = space.costs(space.named_genotype(name)[None])
    assert costs.macs[0] == pytest.approx(macs * 1e6, rel=0.03)
    assert costs.parameters[0] == pytest.approx(params * 1e6, rel=0.02)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_costs_what_its_module_costs(imagenet, block):
    """At full size, where stages change channels and strides; counted from the graph."""
    config = imagenet.named[f"all_{block}"]
    counted = module_costs(imagenet.build(config), (3, 224, 224))
    for name, column in imagenet.costs(imagenet.genotype(config)[None]).columns().items():
        assert column[0] == counted[name], name


def test_the_space_has_22_layers_of_nine_blocks(imagenet):
    assert imagenet.log10_size == pytest.approx(22 * np.log10(9))
    assert imagenet.workload.input_shape == (3, 224, 224)


def test_indices_are_upstreams(imagenet):
    """HW-NAS-Bench's order: kernel 3, then kernel 5, by expansion with the grouped one second; skip last."""
    row = imagenet.genotypes_from_indices(np.array([[7, 8, 1, 0, 4, 5, 2, 3, 6, *[0] * 13]]))[0]
    chosen = list(imagenet.config(row).values())
    assert chosen[:9] == ["k5_e6", "skip", "k3_e1_g2", "k3_e1", "k5_e1", "k5_e1_g2", "k3_e3", "k3_e6", "k5_e3"]


@pytest.mark.parametrize("indices", [[[9] * 22], [[-1] * 22], [[0] * 21], [[0.5] * 22]])
def test_other_indices_are_refused(imagenet, indices):
    with pytest.raises(SpaceError):
        imagenet.genotypes_from_indices(np.array(indices))


def test_skip_is_nothing_where_the_shape_is_kept():
    assert layer_specs("skip", 24, 24, 1) == ()
    (changed,) = layer_specs("skip", 24, 32, 2)
    assert [(conv.kernel, conv.stride, conv.relu) for conv in changed.convs] == [(1, 2, True)]


def test_grouped_blocks_shuffle_between_their_convolutions():
    (layer,) = layer_specs("k5_e1_g2", 24, 24, 1)
    assert [conv.groups for conv in layer.convs] == [2, 24, 2]
    assert [conv.kind for conv in layer.convs] == ["grouped", "depthwise", "grouped"]
    assert (layer.shuffle, layer.shortcut) == (2, "identity")
    assert layer_specs("k5_e1", 24, 24, 1)[0].shuffle == 0


def test_channel_shuffle_interleaves_the_groups():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_features_are_work_and_every_choice(imagenet):
    rows = imagenet.sample(50, np.random.default_rng(0))
    features = imagenet.encode(rows)
    names = list(imagenet.feature_names)
    for layer in (0, 21):
        columns = [names.index(f"layer{layer + 1}={block}") for block in BLOCKS]
        np.testing.assert_array_equal(features[:, columns].argmax(axis=1), rows[:, layer])
        np.testing.assert_array_equal(features[:, columns].sum(axis=1), 1)
    macs = [names.index(name) for name in names if name.endswith("_macs")]
    work = np.linalg.lstsq(np.c_[features[:, macs], np.ones(50)], imagenet.costs(rows).macs, rcond=None)[0]
    np.testing.assert_allclose(np.c_[features[:, macs], np.ones(50)] @ work, imagenet.costs(rows).macs, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"input_shape": (3, 224)}, "input_shape"),
        ({"input_shape": (3, 3, 224)}, "input_shape"),
        ({"classes": 0}, "classes"),
        ({"width": 0}, "width"),
        ({"head_filters": 0}, "head_filters"),
        ({"head_filters": 1.5}, "head_filters"),
    ],
)
def test_bad_arguments_are_named(arguments, field):
    with pytest.raises(SpaceError, match=field):
        FBNet(**arguments)
