"""ExecuTorch: the suite, its threads, its int8."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gnomon.devices.executorch import ExecuTorchDevice
from gnomon.devices.onnx_module import OnnxModule
from gnomon.errors import ConfigError
from gnomon.testing import DeviceSuite

needs_runtime = pytest.mark.skipif(
    ExecuTorchDevice.unavailable() is not None, reason=f"{ExecuTorchDevice.unavailable()}"
)


@pytest.fixture(scope="module")
def shared_device():
    """One for all tests: its converter takes long to start."""
    return ExecuTorchDevice()


@pytest.mark.runtime
@needs_runtime
class TestExecuTorch(DeviceSuite):
    @pytest.fixture
    def device(self, shared_device):
        return shared_device

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        threads = ExecuTorchDevice()
        threads.threads = 2  # whatever this machine has
        return [ExecuTorchDevice(precision="int8"), threads]


@pytest.mark.runtime
@needs_runtime
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_obeyed(busy_threads, onnx_models, threads):
    assert busy_threads(ExecuTorchDevice(), onnx_models[-1], threads) == threads


@pytest.mark.runtime
@needs_runtime
def test_int8_answers_like_eight_bits(onnx_models):
    device = ExecuTorchDevice(precision="int8", calibration_samples=4)
    question = np.random.default_rng(5).standard_normal((1, 1, 8, 16, 16)).astype(np.float32)
    answer = device.answers(onnx_models[0], {"input": question})["output"]
    exact = OnnxModule(onnx_models[0].graphs["main"].onnx_path)(torch.from_numpy(question[0])).numpy()
    error = np.sqrt(np.mean((answer[0] - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < error < 0.1


@pytest.mark.parametrize("options", [{"calibration_samples": 0}, {"precision": "fp16"}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        ExecuTorchDevice(**options)
