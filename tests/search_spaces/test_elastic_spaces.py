"""Every weight-shared space of the house against the contract."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.ofa_mobilenet import OFAMobileNet
from gnomon.testing import ElasticSuite


class TestMobileCNN(ElasticSuite):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return MobileCNN((1, 12, 12), classes=10, width=0.25, blocks=3)


class TestMobileCNNWithAHead(ElasticSuite):
    networks = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        blocks = [{"filters": 16, "layers": 1, "stride": 2}, {"filters": 20, "layers": 2, "stride": 2}]
        return MobileCNN((2, 17, 26), classes=3, blocks=blocks, stem_filters=8, head_filters=24)


class TestOFAMobileNet(ElasticSuite):
    networks = 2
    transforms_weights = True

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return OFAMobileNet((3, 40, 40), classes=7, width=0.25, resolutions=[32, 40])


class CroppingOFA(OFAMobileNet):
    def elastic(self):
        return super().elastic("crop")


class TestOFAMobileNetWithCroppedKernels(ElasticSuite):
    networks = 2

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return CroppingOFA((3, 32, 32), classes=7, width=0.25)


def test_a_space_without_shared_weights_says_so():
    with pytest.raises(SpaceError, match="nasbench201"):
        NASBench201((3, 16, 16), classes=10, channels=4, cells=1).elastic()


def test_layers_with_another_shortcut_have_norms_of_their_own():
    space = MobileCNN((1, 12, 12), classes=4, width=0.25, blocks=2)
    model = space.elastic().train()
    row = space.sample(1, np.random.default_rng(0))[0]
    trained = {}
    for shortcut in ("none", "pool"):
        skips = {"block1.skip": shortcut, "block2.skip": shortcut, "block1.layers": 1, "block2.layers": 1}
        model.select({**space.config(row), **skips})
        model.zero_grad(set_to_none=True)
        model(torch.randn(4, 1, 12, 12)).sum().backward()
        trained[shortcut] = {name for name, weight in model.named_parameters() if weight.grad is not None}
        norms = {name for name in trained[shortcut] if ".norms." in name}
        assert norms
        assert all(f".norms.{shortcut}." in name for name in norms)
    filters = [{name for name in names if ".norms." not in name} for names in trained.values()]
    assert filters[0] == filters[1]
