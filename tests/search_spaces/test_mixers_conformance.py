"""Every mixer that ships runs the conformance suite."""

from __future__ import annotations

import pytest

from gnomon.search_spaces.hybrid_slm.mixers import mixer_class, mixer_kinds
from gnomon.testing import MixerSuite

BY_DEFAULT = ("attention", "deltanet", "mamba2")
"""Of the spaces."""


@pytest.mark.parametrize("kind", BY_DEFAULT, scope="class")
class TestMixers(MixerSuite):
    @pytest.fixture
    def mixer_type(self, kind):
        return mixer_class(kind)


@pytest.mark.parametrize("kind", [kind for kind in mixer_kinds() if kind not in BY_DEFAULT], scope="class")
class TestOtherMixers(MixerSuite):
    @pytest.fixture
    def mixer_type(self, kind):
        return mixer_class(kind)

    @pytest.mark.slow
    def test_onnx_at_two_lengths_and_two_steps(self, mixer, tmp_path):
        super().test_onnx_at_two_lengths_and_two_steps(mixer, tmp_path)
