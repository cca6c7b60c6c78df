"""Every device runs the suite; devices that break the contract fail it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.recorded import RecordedDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.devices.torch_cuda import TorchCUDADevice
from gnomon.errors import DeviceError
from gnomon.records import ArchitectureTable
from gnomon.search_spaces import Deployable
from gnomon.testing import DeviceSuite

CONFIGS = ({"width": 8, "layers": 1}, {"width": 16, "layers": 2}, {"width": 64, "layers": 8})


@pytest.fixture
def tiny_space(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    from tiny_space import TinySpace

    return TinySpace()


@pytest.fixture
def architectures(tiny_space) -> list[Deployable]:
    return [tiny_space.deployable(config) for config in CONFIGS]


@pytest.fixture
def table(tiny_space) -> ArchitectureTable:
    rows = np.stack([tiny_space.genotype(config) for config in (*CONFIGS, {"width": 8, "layers": 8})])
    columns = {"pi": np.array([0.1, 0.3, 9.0, np.nan]), "gpu": np.array([1.0, 2.0, 3.0, 4.0])}
    return ArchitectureTable(tiny_space, rows, columns, "a table")


class TestOnnxRuntime(DeviceSuite):
    @pytest.fixture
    def device(self):
        return OnnxRuntimeDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        devices = [OnnxRuntimeDevice(graph_optimization="none"), OnnxRuntimeDevice(precision="int8")]
        threads = OnnxRuntimeDevice()
        threads.threads = 2  # whatever this machine has
        return [*devices, threads]


class TestTorchCPU(DeviceSuite):
    @pytest.fixture
    def device(self):
        return TorchCPUDevice()

    @pytest.fixture
    def deployables(self, architectures):
        return architectures

    @pytest.fixture
    def variants(self):
        return [TorchCPUDevice(channels_last=True)]


@pytest.mark.skipif(TorchCUDADevice.unavailable() is not None, reason=f"{TorchCUDADevice.unavailable()}")
class TestTorchCUDA(TestTorchCPU):
    @pytest.fixture
    def device(self):
        return TorchCUDADevice()

    @pytest.fixture
    def variants(self):
        return [TorchCUDADevice(channels_last=True)]


class TestRecorded(DeviceSuite):
    @pytest.fixture
    def device(self, table):
        return RecordedDevice(table, "pi")

    @pytest.fixture
    def deployables(self, architectures):
        return architectures

    @pytest.fixture
    def variants(self, table):
        return [RecordedDevice(table, "gpu")]


# ---- The suite fails on broken devices -----------------------------------------------------


class _Broken(RecordedDevice):
    """A recorded device with one change to its list of measurements."""

    change: Callable[[list], list] = staticmethod(list)

    def measure(self, deployables, protocol, *, seed=0):
        return iter(type(self).change(list(super().measure(deployables, protocol, seed=seed))))


def _each(**changes) -> Callable[[list], list]:
    return staticmethod(
        lambda results: [m if m.verdict == "failed" else replace(m, **changes) for m in results]  # type: ignore[return-value]
    )


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (staticmethod(lambda results: sorted(results, key=lambda m: m.architecture)), "not in the order"),
        (_each(p10=1e9), "not minimum <= p10"),
        (_each(minimum=None), "a statistic is missing"),
        (_each(interval=(1e8, 1e9)), "the interval does not hold"),
        (_each(process_values=()), "no value of any process"),
        (_each(timestamp=""), "no time of measuring"),
    ],
)
def test_the_suite_fails_on_unsound_measurements(table, architectures, quick, change, complaint):
    device = type("Unsound", (_Broken,), {"change": change})(table, "pi")
    with pytest.raises(AssertionError, match=complaint):
        DeviceSuite().test_measurements_are_sound_and_in_order(device, architectures, quick)


def test_the_suite_fails_on_a_device_that_raises_for_a_broken_model(table, architectures, quick, tmp_path):
    class Raising(RecordedDevice):
        def measure(self, deployables, protocol, *, seed=0):
            results = list(super().measure(deployables, protocol, seed=seed))
            if any(m.verdict == "failed" for m in results):
                raise DeviceError("one model failed")
            return iter(results)

    broken = replace(architectures[0], name="b", architecture=replace(architectures[0].architecture, config={"no": 0}))
    suite = DeviceSuite()
    suite.test_a_broken_model_costs_one_measurement(RecordedDevice(table, "pi"), architectures, quick, broken)
    with pytest.raises(DeviceError):
        suite.test_a_broken_model_costs_one_measurement(Raising(table, "pi"), architectures, quick, broken)


def test_the_suite_fails_on_a_device_that_hides_failures(table, architectures, quick):
    class Hiding(_Broken):
        change = staticmethod(lambda results: [results[0], replace(results[0], architecture="b"), results[2]])

    with pytest.raises(AssertionError, match="a model that cannot run has a latency"):
        DeviceSuite().test_a_broken_model_costs_one_measurement(
            Hiding(table, "pi"), architectures, quick, replace(architectures[0], name="b")
        )


def test_the_suite_fails_on_a_constant_latency(table, architectures, quick):
    class Constant(_Broken):
        change = _each(minimum=1.0, p10=1.0, median=1.0, p90=1.0)

    with pytest.raises(AssertionError, match="ten times the work"):
        DeviceSuite().test_work_takes_time(Constant(table, "pi"), architectures, quick)


def test_the_suite_fails_on_settings_that_are_no_identity(table, architectures):
    class Forgetful(RecordedDevice):
        def setting(self, workload):
            return super().setting(replace(workload, batch=1))

    class Fickle(RecordedDevice):
        count = 0

        def setting(self, workload):
            Fickle.count += 1
            return replace(super().setting(workload), options={"count": Fickle.count})

    suite, device = DeviceSuite(), RecordedDevice(table, "pi")
    suite.test_setting_is_an_identity(device, architectures, [])
    with pytest.raises(AssertionError, match="share an identity"):
        suite.test_setting_is_an_identity(Forgetful(table, "pi"), architectures, [])
    with pytest.raises(AssertionError, match="two identities"):
        suite.test_setting_is_an_identity(Fickle(table, "pi"), architectures, [])
    with pytest.raises(AssertionError, match="share an identity"):
        suite.test_setting_is_an_identity(device, architectures, [RecordedDevice(table, "pi")])


def test_the_suite_fails_on_a_device_that_cannot_run(table, monkeypatch):
    class Missing(RecordedDevice):
        @classmethod
        def unavailable(cls):
            return "no such thing"

    with pytest.raises(AssertionError, match="no such thing"):
        DeviceSuite().test_unavailable_is_cheap(Missing(table, "pi"))


def test_recorded_says_what_is_missing(table, tiny_space, quick):
    device = RecordedDevice(table, "pi")
    known = tiny_space.deployable(CONFIGS[1])
    blank = tiny_space.deployable({"width": 8, "layers": 8})
    absent = tiny_space.deployable({"width": 64, "layers": 1})
    found, nan, none = device.measure([known, blank, absent], quick)
    assert (found.latency_ms, found.minimum, found.p90, found.interval) == (0.3, 0.3, 0.3, (0.3, 0.3))
    assert (found.n_runs, found.verdict, found.setting.hardware) == (0, "good", "pi")
    assert "a table" in found.fingerprint.runtime
    for failed in (nan, none):
        assert failed.verdict == "failed"
        assert "not recorded in a table, column pi" in failed.error
