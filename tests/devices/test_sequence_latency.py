"""Sequence models on devices: reading and steps are timed apart, the plan feeds caches."""

from dataclasses import replace

import pytest

from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.search_spaces import Workload
from gnomon.search_spaces.hat import HATDecoderSpace, HATSpace

SIZES = {"source_vocabulary": 50, "target_vocabulary": 50, "source_length": 8, "generated_length": 6, "max_length": 32}


@pytest.fixture
def patient(quick):
    """Importing torch and building a network takes a child longer than loading a file."""
    return replace(quick, timeout_s=60.0)


@pytest.mark.parametrize(
    ("device", "space_class", "reader"),
    [
        (OnnxRuntimeDevice(), HATSpace, "encoder"),
        (OnnxRuntimeDevice(), HATDecoderSpace, "prefill"),
        pytest.param(TorchCPUDevice(), HATSpace, "encoder", marks=pytest.mark.slow),
    ],
)
def test_both_parts_are_kept(device, space_class, reader, patient):
    space = space_class(**SIZES, beam=2)
    name = next(name for name in space.named if name.startswith("plain"))
    (measured,) = device.measure([space.deployable(space.named[name])], patient)
    assert measured.verdict != "failed", measured.error
    assert set(measured.parts) == {reader, "step"}
    assert 0 < measured.parts[reader] < measured.parts["step"] < 1.5 * measured.median


def test_more_steps_take_longer(patient):
    space = HATSpace(**SIZES)
    config = space.named["plain_3x4"]
    few, many = (space.deployable(config, Workload((8,), source_length=8, generated_length=steps)) for steps in (3, 24))
    short, long = OnnxRuntimeDevice().measure([few, many], patient)
    assert long.parts["step"] > 3 * short.parts["step"]
