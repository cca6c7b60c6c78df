"""Every space of the house against the contract."""

import pytest

from gnomon.search_spaces.mobile_cnn import MobileCNN
from gnomon.search_spaces.nasbench201 import NASBench201
from gnomon.search_spaces.nasbench_macro import NASBenchMacro
from gnomon.testing import SearchSpaceSuite


class TestMobileCNN(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return MobileCNN((1, 28, 28), classes=10, width=0.5, blocks=5)


class TestMobileCNNOfOddSize(SearchSpaceSuite):
    classes = 3

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        blocks = [{"filters": 16, "layers": 1, "stride": 2}, {"filters": 20, "layers": 2, "stride": 2}]
        return MobileCNN((2, 37, 26), classes=3, blocks=blocks, stem_filters=8, head_filters=24)


class TestNASBench201(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return NASBench201((3, 16, 16), classes=10, channels=4, cells=2)


class TestSimplifiedNASBench201(SearchSpaceSuite):
    classes = 7

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return NASBench201((1, 13, 14), classes=7, channels=4, cells=1, simplify=True)


class TestNASBenchMacro(SearchSpaceSuite):
    classes = 10

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return NASBenchMacro((3, 32, 32), classes=10)
