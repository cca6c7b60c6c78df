"""ncnn through pnnx: the suite, and what both do silently if not told otherwise."""

from __future__ import annotations

import pytest

from gnomon.devices.ncnn import NcnnDevice
from gnomon.testing import DeviceSuite

pytestmark = pytest.mark.skipif(NcnnDevice.unavailable() is not None, reason=f"{NcnnDevice.unavailable()}")


class TestNcnn(DeviceSuite):
    @pytest.fixture
    def device(self):
        return NcnnDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        devices = [NcnnDevice(winograd=False), NcnnDevice(packing=False), NcnnDevice(precision="fp16")]
        threads = NcnnDevice()
        threads.threads = 2  # whatever this machine has
        return [*devices, threads]
