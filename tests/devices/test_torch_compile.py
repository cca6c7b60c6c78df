"""torch.compile as a device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gnomon.devices.answers import TOLERANCES
from gnomon.devices.torch_compile import TorchCompileDevice
from gnomon.devices.torch_cpu import TorchCPUDevice

pytestmark = pytest.mark.skipif(
    TorchCompileDevice.unavailable() is not None, reason=f"{TorchCompileDevice.unavailable()}"
)


@pytest.fixture
def deployables(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    from tiny_space import TinySpace

    return [TinySpace().deployable({"width": width, "layers": layers}) for width, layers in ((8, 1), (64, 8))]


@pytest.mark.runtime
def test_a_compiled_module_is_checked_and_timed(deployables, once):
    small, large = TorchCompileDevice().measure(deployables, replace(once, timeout_s=240.0))
    assert small.verdict != "failed", small.error
    assert large.verdict != "failed", large.error
    assert large.latency_ms > small.latency_ms
    assert small.setting.device == "torch_compile"


def test_answers_are_expected_and_the_setting_is_its_own(deployables, tmp_path):
    device = TorchCompileDevice()
    job = device.prepare(deployables[0], tmp_path)
    assert Path(job.graphs["main"].answers).is_file()
    assert job.graphs["main"].tolerance == TOLERANCES["fp32"]
    workload = deployables[0].workload
    assert device.setting(workload).id != TorchCPUDevice().setting(workload).id
