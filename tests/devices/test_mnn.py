"""MNN: the suite, and what its tools do silently."""

from __future__ import annotations

import pytest

from gnomon.devices.mnn import MNNDevice
from gnomon.testing import DeviceSuite

pytestmark = [
    pytest.mark.runtime,
    pytest.mark.skipif(MNNDevice.unavailable() is not None, reason=f"{MNNDevice.unavailable()}"),
]


class TestMNN(DeviceSuite):
    @pytest.fixture
    def device(self):
        return MNNDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        threads = MNNDevice()
        threads.threads = 2  # whatever this machine has
        return [threads]
