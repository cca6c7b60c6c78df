"""A latency of a provider counts only if that provider ran: tried with the profiles that ONNX Runtime writes."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from gnomon.devices import Protocol
from gnomon.devices.jobs import ModelJob
from gnomon.devices.onnxruntime import OnnxRuntimeDevice, OnnxRuntimeRunner
from gnomon.devices.onnxruntime_providers import CPU, nodes_by_provider, provider_list, provider_share
from gnomon.errors import ConfigError, DeviceError, MeasurementError
from gnomon.search_spaces import Deployable, Workload

ABSENT = [name for name in ("cuda", "coreml", "qnn") if OnnxRuntimeDevice.unavailable() is None]


def kernel(name: str, provider: str) -> dict[str, object]:
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": 3, "args": {"op_name": "Conv", "provider": provider}}


def test_who_ran_what_is_read_from_a_real_profile(onnx_models: list[Deployable], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(tmp_path / "profile")
    path = str(onnx_models[1].graphs["main"].onnx_path)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(3):
        session.run(None, {"input": np.zeros((1, 8, 16, 16), np.float32)})
    nodes = nodes_by_provider(session.end_profiling())
    assert set(nodes) == {CPU}
    assert 2 <= nodes[CPU] <= 4  # two convolutions and changes of layout, each counted once
    assert provider_share("cpu", nodes) == 1.0
    with pytest.raises(MeasurementError, match="no node ran on CUDAExecutionProvider"):
        provider_share("cuda", nodes)


def test_the_share_counts_each_node_once(tmp_path: Path) -> None:
    """A recorded form of what ONNX Runtime writes where a part of the network falls back."""
    cuda = "CUDAExecutionProvider"
    events = [kernel("a", cuda), kernel("a", cuda), kernel("b", cuda), kernel("c", cuda), kernel("d", CPU)]
    events += [{"cat": "Session", "name": "model_run"}, {"cat": "Node", "name": "a_fence_before", "args": {}}]
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(events))
    nodes = nodes_by_provider(path)
    assert nodes == Counter({cuda: 3, CPU: 1})
    assert provider_share("cuda", nodes) == 0.75
    with pytest.raises(MeasurementError, match="all fell back to nothing"):
        provider_share("cuda", Counter())


def test_the_asked_one_comes_first() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", CPU]
    names = [name for name, _ in provider_list("tensorrt", {"trt_fp16_enable": True}, 2, available)]
    assert names == available
    assert provider_list("cuda", {"device_id": 1}, 2, available)[0] == ("CUDAExecutionProvider", {"device_id": "1"})
    xnnpack = provider_list("xnnpack", {}, 2, ["XnnpackExecutionProvider", CPU])
    assert xnnpack == [("XnnpackExecutionProvider", {"intra_op_num_threads": "2"}), (CPU, {})]
    with pytest.raises(DeviceError, match=r"provider.*allowed: cpu"):
        provider_list("coreml", {}, 1, [CPU])


@pytest.mark.parametrize("provider", ABSENT)
def test_an_absent_provider_is_an_error_not_the_cpu(
    provider: str, onnx_models: list[Deployable], once: Protocol
) -> None:
    device = OnnxRuntimeDevice(provider=provider)
    device.hardware = lambda: "an accelerator"  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="does not have it"):
        list(device.measure(onnx_models[:1], once))


def test_a_checked_session_is_the_timed_one_and_profiles_no_longer(onnx_models: list[Deployable]) -> None:
    """The CPU stands for an accelerator: the way through the profile is the same."""
    runner = OnnxRuntimeRunner(1)
    runner._provider = "cuda"  # the session below still runs on the CPU: everything falls back
    model = ModelJob.of(onnx_models[0])
    with pytest.raises(MeasurementError, match="all fell back to CPUExecutionProvider"):
        runner.load(model.graphs["main"], model)
    assert runner.facts() == {}
    runner._provider = "cpu"
    session = runner._checked_session(model.graphs["main"])
    assert runner.facts() == {"provider_share": 1.0}
    assert session.get_outputs()[0].name == "output"
    runner.reset_peak_memory()
    assert runner.facts() == {}


def test_a_fallback_costs_the_measurement(onnx_models: list[Deployable], once: Protocol, monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))

    class Pretending(OnnxRuntimeDevice):
        runner = "falling_back.FallingBackRunner"

    message = "no node ran on CUDAExecutionProvider: all fell back to CPUExecutionProvider"
    (found,) = Pretending().measure(onnx_models[:1], replace(once, interleave=False))
    assert found.verdict == "failed"
    assert message in str(found.error)
    with pytest.raises(DeviceError, match=message):  # not even the reference model runs there
        Pretending().measure(onnx_models[:1], once)


def test_settings_differ_and_options_are_checked() -> None:
    workload = Workload((8, 16, 16))
    plain, xnnpack = OnnxRuntimeDevice(), OnnxRuntimeDevice(provider="xnnpack")
    assert plain.setting(workload).options == {"graph_optimization": "all"}  # as it was before there were providers
    assert xnnpack.setting(workload).id != plain.setting(workload).id
    with pytest.raises(ConfigError, match=r"provider.*tpu"):
        OnnxRuntimeDevice(provider="tpu")
    with pytest.raises(ConfigError, match="provider_options"):
        OnnxRuntimeDevice(provider_options={"device_id": 1})


def test_a_gpu_is_named_by_its_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "nvidia-smi"
    fake.write_text('#!/bin/sh\necho "A GPU $3"\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    device = OnnxRuntimeDevice(provider="cuda", provider_options={"device_id": 1})
    assert device.hardware() == "A GPU --id=1"
    fake.write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(DeviceError, match="does not name a GPU"):
        device.hardware()
