"""Every mixer that ships runs the conformance suite."""

from __future__ import annotations

import pytest

from gnomon.search_spaces.hybrid_slm.mixers import mixer_class, mixer_kinds
from gnomon.testing import MixerSuite


@pytest.mark.parametrize("kind", mixer_kinds(), scope="class")
class TestMixers(MixerSuite):
    @pytest.fixture
    def mixer_type(self, kind):
        return mixer_class(kind)
