import numpy as np
import pytest

from gnomon.search_spaces.extremes import largest, neutral_decisions, smallest
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.ofa_mobilenet import OFAMobileNet
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace

SPACES = {
    "mobile_cnn": lambda: MobileCNN(input_shape=(1, 28, 28), classes=10, width=0.5, blocks=4),
    "ofa_mobilenet": OFAMobileNet,
    "nasbench201": NASBench201,
}


@pytest.mark.parametrize("make", SPACES.values(), ids=SPACES)
def test_nothing_that_was_drawn_is_beyond_the_extremes(make):
    space = make()
    rows = space.sample(5000, np.random.default_rng(0))
    macs = space.costs(rows).macs
    assert space.costs(largest(space)[None]).macs[0] >= macs.max()
    assert space.costs(smallest(space)[None]).macs[0] <= macs.min()


@pytest.mark.parametrize("space", [TinyElasticSpace(), NASBench201()], ids=lambda space: space.name)
def test_extremes_are_exact_where_all_can_be_listed(space):
    macs = space.costs(space.enumerate()).macs
    assert space.costs(largest(space)[None]).macs[0] == macs.max()
    assert space.costs(smallest(space)[None]).macs[0] == macs.min()


@pytest.mark.parametrize("make", SPACES.values(), ids=SPACES)
def test_extremes_are_canonical_and_always_the_same(make):
    space = make()
    for end in (largest, smallest):
        row = end(space)
        assert (space.canonical(row[None])[0] == row).all()
        assert (end(make()) == row).all()


def test_shortcuts_are_neutral_and_nothing_else():
    space = SPACES["mobile_cnn"]()
    for end in (largest, smallest):
        neutral = neutral_decisions(space, end(space))
        names = [d.name for d, is_neutral in zip(space.decisions, neutral, strict=True) if is_neutral]
        assert [name for name in names if len(space.decisions[space.algebra.index[name]].choices) > 1] == [
            f"block{b}.skip" for b in (1, 2, 3, 4)
        ]


def test_the_largest_of_ofa_is_the_full_network():
    space = OFAMobileNet()
    config = space.config(largest(space))
    for decision in space.decisions:
        assert config[decision.name] == max(decision.choices), decision.name
