"""Spaces of transformers against the contracts of spaces, sequence models and shared weights."""

import pytest

from gnomon.search_spaces.hat import HATDecoderSpace, HATSpace
from gnomon.testing import ElasticSuite, SequenceSpaceSuite

SIZES = {
    "source_vocabulary": 30,
    "target_vocabulary": 25,
    "widths": (12, 16),
    "ffn_widths": (8, 20, 24),
    "qkv_width": 16,
    "source_length": 5,
    "generated_length": 4,
    "max_length": 40,
}


class TestHAT(SequenceSpaceSuite):
    models = 3

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return HATSpace(**SIZES)


class TestHATDecoder(SequenceSpaceSuite):
    models = 3

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return HATDecoderSpace(**SIZES, decoder_layers=(1, 3), shared_embeddings="none")


class TestHATWithOneTable(SequenceSpaceSuite):
    models = 3
    source_vocabulary = 25

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        sizes = {**SIZES, "source_vocabulary": 25, "shared_embeddings": "all"}
        return HATSpace(**sizes, encoder_layers=(2,), decoder_layers=(1, 2), attended=(1, 2))


class _SharedWeights(ElasticSuite):
    def inputs(self, space, batch):
        return SequenceSpaceSuite.inputs(SequenceSpaceSuite(), space, batch)


class TestSharedHAT(_SharedWeights):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return HATSpace(**SIZES)


class TestSharedHATDecoder(_SharedWeights):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls):
        return HATDecoderSpace(**SIZES, decoder_layers=(1, 3))
