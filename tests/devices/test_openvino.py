"""OpenVINO: the suite, and what it does silently if not told otherwise."""

from __future__ import annotations

import pytest

from gnomon.devices.openvino import OpenVINODevice, OpenVINORunner
from gnomon.testing import DeviceSuite

pytestmark = pytest.mark.skipif(OpenVINODevice.unavailable() is not None, reason=f"{OpenVINODevice.unavailable()}")


class TestOpenVINO(DeviceSuite):
    @pytest.fixture
    def device(self):
        return OpenVINODevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        devices = [OpenVINODevice(execution_mode="accuracy"), OpenVINODevice(precision="int8")]
        threads = OpenVINODevice()
        threads.threads = 2  # whatever this machine has
        return [*devices, threads]


@pytest.fixture
def job(onnx_models, tmp_path):
    return OpenVINODevice().prepare(onnx_models[0], tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
def test_properties_are_read_back_as_asked(job, threads):
    compiled = OpenVINORunner(threads).compile(job.graphs["main"])
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"  # bf16 on capable CPUs if not set
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("EXECUTION_MODE_HINT").name == "PERFORMANCE"
