"""Once-for-All's space: the contract, the skeleton, resolutions, upstream's sub-networks."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.graph_costs import module_costs
from gnomon.search_spaces.ofa_mobilenet import RESOLUTIONS, OFAMobileNet
from gnomon.search_spaces.ofa_skeleton import divisible
from gnomon.testing import SearchSpaceSuite


class TestOFAMobileNet(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return OFAMobileNet((3, 40, 40), classes=10, width=0.5, resolutions=[32, 36, 40])


class TestOFAMobileNetOfOneResolution(SearchSpaceSuite):
    classes = 4

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return OFAMobileNet((1, 33, 33), classes=4, width=0.25)


@pytest.fixture(scope="module")
def imagenet():
    return OFAMobileNet()


def uniform(kernel, expansion, depth, resolution):
    return {"ks": [kernel] * 20, "e": [expansion] * 20, "d": [depth] * 5, "r": resolution}


@pytest.mark.parametrize("name", ["middle", "largest", "smallest"])
def test_costs_are_the_modules_at_its_own_resolution(imagenet, name):
    config = imagenet.named[name]
    edge = config["resolution"]
    counted = module_costs(imagenet.build(config), (3, edge, edge))
    for cost, column in imagenet.costs(imagenet.genotype(config)[None]).columns().items():
        assert column[0] == counted[cost], cost


def test_the_largest_network_is_the_authors(imagenet):
    """7.66 M parameters follow from the released skeleton: 3x3 stem ... 960, 1280, 1000."""
    costs = imagenet.costs(imagenet.named_genotype("largest")[None])
    inner = sum((a * e * (a + b) + a * e * 49 + 2 * (2 * a * e + b)) for a, b, e, n in [
        (16, 24, 6, 1), (24, 24, 6, 3), (24, 40, 6, 1), (40, 40, 6, 3), (40, 80, 6, 1), (80, 80, 6, 3),
        (80, 112, 6, 1), (112, 112, 6, 3), (112, 160, 6, 1), (160, 160, 6, 3),
    ] for _ in range(n))  # fmt: skip
    squeezed = [(24, 1), (40, 3), (80, 1), (112, 3), (112, 1), (160, 3)]
    squeeze = sum(n * (2 * 6 * a * divisible(6 * a // 4) + 6 * a + divisible(6 * a // 4)) for a, n in squeezed)
    fixed = 27 * 16 + 32 + (16 * 9 + 32 + 256 + 32) + 160 * 960 + 1920 + 960 * 1280 + 1281 * 1000
    assert costs.parameters[0] == inner + squeeze + fixed == 7_664_760


@pytest.mark.parametrize(("channels", "expected"), [(18, 24), (16, 16), (36, 40), (3, 8), (28, 32), (80 * 6 / 4, 120)])
def test_channels_round_as_in_the_mobilenets(channels, expected):
    assert divisible(channels) == expected


def test_resolution_multiplies_the_work(imagenet):
    rows = imagenet.genotypes_from_archs([uniform(5, 4, 3, 128), uniform(5, 4, 3, 224)])
    costs = imagenet.costs(rows)
    assert costs.macs[1] / costs.macs[0] == pytest.approx((224 / 128) ** 2, rel=0.05)
    assert costs.parameters[0] == costs.parameters[1]


def test_upstreams_sub_networks(imagenet):
    arch = {
        "ks": [7, 5, 5, 5, 7, 7, 5, 7, 5, 7, 3, 7, 5, 3, 7, 3, 5, 3, 5, 3],
        "e": [6, 4, 4, 6, 6, 3, 4, 3, 3, 6, 3, 3, 3, 6, 3, 4, 6, 4, 3, 6],
        "d": [2, 2, 2, 2, 3],
        "r": np.int64(204),
    }
    config = imagenet.config(imagenet.genotypes_from_archs([arch])[0])
    assert config["resolution"] == 204
    assert [config[f"stage{stage}.depth"] for stage in range(1, 6)] == [2, 2, 2, 2, 3]
    assert (config["stage1.layer1.kernel"], config["stage1.layer2.expansion"]) == (7, 4)
    assert (config["stage5.layer3.kernel"], config["stage5.layer3.expansion"]) == (5, 3)
    assert "stage5.layer4.kernel" not in config
    assert sum(name.endswith("kernel") for name in config) == 11


def test_what_lies_beyond_the_depth_does_not_matter(imagenet):
    one, two = uniform(3, 3, 2, 128), uniform(3, 3, 2, 128)
    two["ks"][2], two["e"][19] = 7, 6
    rows = imagenet.genotypes_from_archs([one, two])
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"r": 130}, "resolution"),
        ({"d": [2, 2, 2, 2, 5]}, "stage5.depth"),
        ({"ks": [4] * 20}, "kernel"),
        ({"e": [3]}, "archs"),
    ],
)
def test_other_sub_networks_are_refused(imagenet, change, field):
    with pytest.raises(SpaceError, match=field):
        imagenet.genotypes_from_archs([{**uniform(3, 3, 2, 128), **change}])


def test_features_count_active_choices_only(imagenet):
    row = imagenet.genotypes_from_archs([uniform(3, 3, 2, 128)])
    features = dict(zip(imagenet.feature_names, imagenet.encode(row)[0], strict=True))
    assert features["stage1.layer2.kernel=3"] == 1
    assert features["stage1.layer3.kernel=3"] == 0
    assert features["resolution=128"] == 1
    assert sum(value for name, value in features.items() if "=" in name) == 1 + 5 + 2 * 10


def test_images_are_resized_to_the_resolution_and_its_graph_takes_them_as_they_are(imagenet):
    space = OFAMobileNet((3, 48, 48), classes=3, width=0.25, resolutions=[32, 48])
    config = space.named["smallest"]
    graph = space.deployable(config).graphs["main"]
    assert graph.inputs[0].shape == (1, 3, 32, 32)
    model = space.build(config).eval()
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    small = torch.nn.functional.interpolate(images, size=(32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        torch.testing.assert_close(model(images), model(small))


def test_resolutions_by_default():
    assert OFAMobileNet().arguments()["resolutions"] == list(RESOLUTIONS) == [*range(128, 225, 4)]
    assert OFAMobileNet((1, 40, 40)).arguments()["resolutions"] == [40]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"input_shape": (3, 224, 200)}, "input_shape"),
        ({"input_shape": (3, 24, 24)}, "input_shape"),
        ({"classes": 0}, "classes"),
        ({"width": 9}, "width"),
        ({"resolutions": []}, "resolutions"),
        ({"resolutions": [224, 128]}, "resolutions"),
        ({"resolutions": [16]}, "resolutions"),
    ],
)
def test_bad_arguments_are_named(arguments, field):
    with pytest.raises(SpaceError, match=field):
        OFAMobileNet(**arguments)
