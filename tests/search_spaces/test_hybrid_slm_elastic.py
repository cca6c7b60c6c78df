"""All language models of a space in one set of weights."""

import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.hybrid_slm.elastic import places
from gnomon.search_spaces.hybrid_slm.free import HybridSLMFree
from gnomon.search_spaces.hybrid_slm.space import HybridSLM
from gnomon.testing import ElasticSuite

SMALL = {
    "vocabulary": 20,
    "mixers": ["attention", "deltanet"],
    "widths": [16],
    "head_sizes": [8],
    "kv_heads": [1, 2],
    "max_length": 24,
}


class LanguageElasticSuite(ElasticSuite):
    def inputs(self, space, batch):
        return (torch.randint(0, 20, (batch, 7), generator=torch.Generator().manual_seed(0)),)


class TestTemplate(LanguageElasticSuite):
    @pytest.fixture
    def space(self):
        return HybridSLM(**SMALL, blocks=[1, 2], ratios=["0:1", "1:1"], ffns=[0, 1], max_operators=12, meta_tokens=[2])


class TestFree(LanguageElasticSuite):
    @pytest.fixture
    def space(self):
        return HybridSLMFree(**SMALL, layers=[1, 2, 3], ffns=[0, 1, 2], ffn_ratios=[2.0, 3.0])


def test_a_branch_is_of_its_place_and_sizes():
    space = HybridSLMFree(**SMALL, layers=[2], ffns=[1])
    config = {"layer1.mixer": "attention", "layer1.kv_heads": 1, "layer2.mixer": "attention", "layer2.kv_heads": 1}
    alike = places(space.spec_of(config).operators)
    assert len(set(alike)) == 4
    other = places(space.spec_of(config | {"layer1.kv_heads": 2}).operators)
    assert [one == two for one, two in zip(alike, other, strict=True)] == [False, True, True, True]


@pytest.mark.parametrize("argument", ["widths", "meta_tokens"])
def test_weights_are_shared_at_one_width_only(argument):
    space = HybridSLMFree(**{**SMALL, argument: [16, 32]})
    with pytest.raises(SpaceError, match=rf"space.{argument}"):
        space.elastic()
