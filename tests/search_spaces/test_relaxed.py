"""Relaxed models and encodings of the spaces that have them."""

import numpy as np
import pytest
import torch

from gnomon.errors import SpaceError
from gnomon.search_spaces.fbnet import FBNet
from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.testing import RelaxedSuite


class TestMobileCNN(RelaxedSuite):
    @pytest.fixture
    def space(self):
        return MobileCNN((1, 16, 16), classes=3, width=0.25, blocks=3)


class TestMobileCNNWithHead(RelaxedSuite):
    models = 1

    @pytest.fixture
    def space(self):
        return MobileCNN((1, 16, 16), classes=3, width=0.25, blocks=2, head_filters=16)


class TestNASBench201(RelaxedSuite):
    @pytest.fixture
    def space(self):
        return NASBench201((1, 8, 8), classes=3, channels=4, cells=1)


def test_a_space_without_mixed_operations_says_so():
    with pytest.raises(SpaceError, match="mixed operations"):
        FBNet((3, 32, 32), classes=4).relaxed()


def test_other_spaces_have_relaxed_encodings():
    space = FBNet((3, 32, 32), classes=4)
    row = space.sample(1, np.random.default_rng(0))[0]
    corner = [
        torch.nn.functional.one_hot(torch.tensor(int(g)), int(k)).float()
        for g, k in zip(row, space.algebra.cardinalities, strict=True)
    ]
    np.testing.assert_allclose(space.encode_soft(corner).numpy(), space.encode(row[None])[0], rtol=1e-4, atol=1e-4)


def test_shapes_of_probabilities_are_checked():
    space = NASBench201((1, 8, 8), classes=3, channels=4, cells=1)
    with pytest.raises(SpaceError, match="probabilities"):
        space.encode_soft([torch.ones(5) / 5] * 5)
