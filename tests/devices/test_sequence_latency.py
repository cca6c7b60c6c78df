"""Sequence models on devices: reading and steps are timed apart, the plan feeds caches."""

import pytest

from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.search_spaces import Workload
from gnomon.search_spaces.hat import HATDecoderSpace, HATSpace

SIZES = {"source_vocabulary": 50, "target_vocabulary": 50, "source_length": 8, "generated_length": 6, "max_length": 32}


@pytest.mark.parametrize("device", [OnnxRuntimeDevice(), TorchCPUDevice()], ids=["onnxruntime", "torch_cpu"])
@pytest.mark.parametrize(("space_class", "reader"), [(HATSpace, "encoder"), (HATDecoderSpace, "prefill")])
def test_both_parts_are_kept(device, space_class, reader, quick):
    space = space_class(**SIZES, beam=2)
    name = next(name for name in space.named if name.startswith("plain"))
    (measured,) = device.measure([space.deployable(space.named[name])], quick)
    assert measured.failure is None
    assert set(measured.parts) == {reader, "step"}
    assert 0 < measured.parts[reader] < measured.parts["step"] < measured.median_ms * 1.5


def test_more_steps_take_longer(quick):
    space = HATSpace(**SIZES)
    config = space.named["plain_3x4"]
    few, many = (space.deployable(config, Workload((8,), source_length=8, generated_length=steps)) for steps in (3, 24))
    short, long = OnnxRuntimeDevice().measure([few, many], quick)
    assert long.parts["step"] > 3 * short.parts["step"]
