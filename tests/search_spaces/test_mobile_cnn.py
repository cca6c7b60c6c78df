"""The skeleton, the named networks and the function keys of MobileCNN."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.mobile_cnn_blocks import SKIPS
from gnomon.search_spaces.mobile_cnn_skeleton import MOBILENET_V2_BLOCKS


@pytest.fixture(scope="module")
def imagenet():
    return MobileCNN((3, 224, 224), classes=1000, width=1.0, blocks=7)


def costs_of(space, name):
    return {key: column[0] for key, column in space.costs(space.named_genotype(name)[None]).columns().items()}


def test_mobilenet_v2_is_exactly_the_published_network(imagenet):
    """3,504,872 parameters and 300.8 M multiply-accumulates, with classifier."""
    costs = costs_of(imagenet, "mobilenet_v2")
    assert costs["parameters"] == 3_504_872
    assert costs["macs"] == 300_774_272
    assert next(iter(imagenet.named)) == "mobilenet_v2"


def test_mnasnet_a1_is_near_the_published_network(imagenet):
    """312 M and 3.9 M in the paper; here block 5 has 120 filters instead of 112."""
    costs = costs_of(imagenet, "mnasnet_a1")
    assert costs["macs"] == pytest.approx(312e6, rel=0.03)
    assert costs["parameters"] == pytest.approx(3.9e6, rel=0.02)


def test_mnasnet_a1_with_its_own_filters_is_exact_to_what_the_paper_prints():
    table = [dict(zip(("filters", "layers", "stride"), row, strict=True)) for row in MOBILENET_V2_BLOCKS]
    table[4]["filters"] = 112
    space = MobileCNN(blocks=table)
    config = {**space.named["mnasnet_a1"], "block5.filters": 112}
    costs = space.costs(space.genotype(config)[None])
    assert round(costs.macs[0] / 1e6) == 312
    assert round(costs.parameters[0] / 1e6, 1) == 3.9


def test_a_space_of_seven_blocks_has_mnasnets_size(imagenet):
    assert imagenet.log10_size == pytest.approx(np.log10(float(432**5 * 288**2)))


@pytest.mark.parametrize(
    ("shape", "final"),
    [((1, 28, 28), (4, 4)), ((1, 8, 8), (4, 4)), ((3, 32, 32), (4, 4)), ((3, 224, 224), (7, 7)), ((3, 4, 9), (4, 9))],
)
def test_maps_never_shrink_below_four(shape, final):
    space = MobileCNN(shape, classes=10, width=0.5, blocks=7)
    assert space.skeleton.final_size == final
    assert all(min(plan.size) >= 4 for plan in space.skeleton.blocks)


@pytest.mark.parametrize("width", [0.1, 0.35, 1.0, 2.0])
def test_choices_are_distinct_and_ascending(width):
    for plan in MobileCNN((1, 28, 28), 10, width).skeleton.blocks:
        assert list(plan.filters) == sorted(set(plan.filters))
        assert list(plan.layers) == sorted(set(plan.layers))
        assert all(filters % 4 == 0 for filters in plan.filters)
        assert min(plan.layers) >= 1


def test_every_operation_kernel_and_shortcut_is_built_as_counted():
    """One block that changes shape and one that keeps it, through all their choices."""
    blocks = [{"filters": 16, "layers": 1, "stride": 2}, {"filters": 16, "layers": 1, "stride": 1}]
    space = MobileCNN((1, 12, 12), classes=2, blocks=blocks, stem_filters=16)
    rows = space.sample(40, np.random.default_rng(0))
    expected = space.costs(rows)
    for row, parameters in zip(rows, expected.parameters, strict=True):
        model = space.build(space.config(row))
        assert sum(p.numel() for p in model.parameters()) == parameters
        assert model(torch.zeros(2, 1, 12, 12)).shape == (2, 2)


def test_identity_that_never_applies_is_the_function_of_none():
    blocks = [{"filters": 16, "layers": 1, "stride": 2}]
    space = MobileCNN((1, 28, 28), classes=2, blocks=blocks)
    base = {"block1.op": "dconv", "block1.kernel": 3, "block1.se": 0.0, "block1.filters": 16}
    keys = {
        (skip, layers): space.function_keys(
            space.genotype({**base, "block1.skip": skip, "block1.layers": layers})[None]
        )[0]
        for skip in ("none", "identity", "pool")
        for layers in (1, 2)
    }
    assert keys["none", 1] == keys["identity", 1]
    assert len(set(keys.values())) == 5


def test_rows_of_one_function_key_build_the_same_function():
    space = MobileCNN((1, 28, 28), classes=4, width=0.5, blocks=3)
    rows = space.sample(300, np.random.default_rng(0))
    skip = space.algebra.index["block2.skip"]
    nones, identities = rows.copy(), rows.copy()
    nones[:, skip], identities[:, skip] = SKIPS.index("none"), SKIPS.index("identity")
    pairs = zip(nones, identities, space.function_keys(nones), space.function_keys(identities), strict=True)
    twins = [(none, identity) for none, identity, key, other in pairs if key == other]
    assert 0.2 < len(twins) / len(rows) < 0.5  # a third: block 2 has one layer
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for twin in twins[:5]:
        outputs = []
        for row in twin:
            torch.manual_seed(0)
            outputs.append(space.build(space.config(row)).eval()(x))
        assert torch.equal(*outputs)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"input_shape": (28, 28)}, "input_shape"),
        ({"input_shape": (1, 3, 28)}, "input_shape"),
        ({"input_shape": None}, "input_shape"),
        ({"classes": 0}, "classes"),
        ({"classes": "10"}, "classes"),
        ({"width": 0}, "width"),
        ({"width": "wide"}, "width"),
        ({"blocks": 8}, "blocks"),
        ({"blocks": []}, "blocks"),
        ({"blocks": [{"filters": 8}]}, "blocks"),
        ({"blocks": [{"filters": 8, "layers": 1, "stride": 3}]}, "blocks"),
        ({"blocks": "many"}, "blocks"),
        ({"stem_filters": 0}, "stem_filters"),
        ({"head_filters": -1}, "head_filters"),
    ],
)
def test_bad_arguments_are_named(arguments, field):
    with pytest.raises(SpaceError, match=field):
        MobileCNN(**{"input_shape": (1, 28, 28), "classes": 10, **arguments})


def test_a_network_learns_to_tell_two_patterns_apart():
    space = MobileCNN((1, 12, 12), classes=2, width=0.25, blocks=3)
    torch.manual_seed(0)
    model = space.build(space.named["mobilenet_v2"])
    labels = torch.arange(64) % 2
    images = 0.3 * torch.randn(64, 1, 12, 12)
    images[labels == 1, :, 3:9] += 1.0
    images[labels == 0, :, :, 3:9] += 1.0
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.1
