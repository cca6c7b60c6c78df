"""Energy: stand-ins for Linux's counters and for NVML, as no machine of the authors has a meter."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gnomon.devices import worker
from gnomon.devices.energy import Meter, NvmlMeter, RaplMeter, cpu_meter, energy_per_run_mj, gpu_meter, idle_power_w
from gnomon.devices.jobs import RoundJob, Sample
from gnomon.devices.onnxruntime import OnnxRuntimeDevice, OnnxRuntimeRunner


def zone(root: Path, folder: str, name: str, energy_uj: int, most: int = 10_000_000) -> Path:
    path = root / folder
    path.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", name), ("energy_uj", str(energy_uj)), ("max_energy_range_uj", str(most))):
        (path / file).write_text(f"{text}\n")
    return path


# ---- RAPL ------------------------------------------------------------------------------------


def test_packages_and_memory_add_up_and_nothing_twice(tmp_path):
    places = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:0:1": "dram",
              "intel-rapl:1": "package-1", "intel-rapl:2": "psys", "intel-rapl-mmio:0": "package-0"}  # fmt: skip
    for folder, name in places.items():
        zone(tmp_path, folder, name, 1_000_000)
    meter = cpu_meter(tmp_path)
    before = meter.read_mj()
    for folder, name in places.items():
        zone(tmp_path, folder, name, 1_002_000)
    assert meter.read_mj() - before == pytest.approx(3 * 2.0)


def test_a_counter_that_begins_anew(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 9_990_000)
    meter = cpu_meter(tmp_path)
    for energy_uj in (5_000, 2_000_000, 1_000):
        zone(tmp_path, "intel-rapl:0", "package-0", energy_uj)
        meter.read_mj()
    assert meter.read_mj() == pytest.approx(15 + 1995 + 8001)


def test_no_meter_is_none(tmp_path):
    assert cpu_meter(tmp_path / "absent") is None
    assert cpu_meter(tmp_path) is None
    zone(tmp_path, "intel-rapl:0", "core", 5)
    assert cpu_meter(tmp_path) is None
    (zone(tmp_path, "intel-rapl:1", "package-0", 5) / "energy_uj").unlink()  # as good as not allowed to read it
    assert cpu_meter(tmp_path) is None


# ---- NVML ------------------------------------------------------------------------------------


class NVMLError(Exception):
    pass


def nvml(gpus: int = 1, *, counts: bool = True) -> SimpleNamespace:
    """A module ``pynvml`` with GPUs named GPU-0, GPU-1, ..., each reading 1000 times its index + 5 mJ."""

    def named(uuid: str) -> int:
        if uuid not in [f"GPU-{i}" for i in range(gpus)]:
            raise NVMLError(uuid)
        return int(uuid[4:])

    def energy(handle: int) -> int:
        if not counts:
            raise NVMLError("not supported")
        return 1000 * handle + 5

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetHandleByUUID=named,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_the_gpu_that_is_named_is_read():
    assert NvmlMeter("GPU-1", nvml(2)).read_mj() == 1005.0
    assert NvmlMeter(None, nvml(1)).read_mj() == 5.0


@pytest.mark.parametrize(
    ("module", "uuid"),
    [(nvml(2), None), (nvml(1), "GPU-7"), (nvml(1, counts=False), None), (nvml(0), None)],
    ids=["which of two", "no such GPU", "an old GPU", "no GPU"],
)
def test_no_gpu_meter_is_none(module, uuid, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", module)
    assert gpu_meter(uuid) is None


def test_without_the_package_there_is_no_gpu_meter(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_meter() is None


# ---- Energy of one run -----------------------------------------------------------------------


class FakeMeter(Meter):
    """A machine that takes 10 W at rest, and ``busy_w`` while a model runs, on a clock of its own."""

    block_s = 0.5

    def __init__(self, busy_w: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.mj = 0.0
        self.busy_w = busy_w
        clock = SimpleNamespace(perf_counter=lambda: self.now, sleep=lambda seconds: self.passes(seconds, 10.0))
        monkeypatch.setattr("gnomon.devices.energy.time", clock)

    def passes(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.mj += watts * seconds * 1e3

    def read_mj(self) -> float:
        return self.mj


def test_energy_is_above_idle(monkeypatch):
    meter = FakeMeter(25.0, monkeypatch)
    idle_w = idle_power_w(meter)
    assert idle_w == pytest.approx(10.0)
    energy = energy_per_run_mj(lambda: meter.passes(0.004, meter.busy_w), meter, idle_w)
    assert energy == pytest.approx(15.0 * 4.0)  # 15 W above idle for 4 ms


def test_what_the_meter_does_not_see_is_none(monkeypatch):
    meter = FakeMeter(9.0, monkeypatch)
    assert energy_per_run_mj(lambda: meter.passes(0.004, meter.busy_w), meter, 10.0) is None


# ---- In a measurement ------------------------------------------------------------------------


def test_a_measuring_process_reads_its_runners_meter(tmp_path, onnx_models, once, monkeypatch):
    """The round of a child, run here, with a counter that rises by 3 J at every reading."""

    class Rising(RaplMeter):
        block_s = 0.01

        def _counter(self, domain: Path) -> int:  # type: ignore[override]
            self._uj = getattr(self, "_uj", 0) + 3_000_000
            return self._uj

    meter = Rising([zone(tmp_path, "intel-rapl:0", "package-0", 0)])
    monkeypatch.setattr(OnnxRuntimeRunner, "meter", lambda self: meter)
    monkeypatch.setattr(worker, "idle_power_w", lambda meter: 0.0)
    device = OnnxRuntimeDevice()
    job = RoundJob(device.runner, 1, device.options(), (device.prepare(onnx_models[0], tmp_path),), once)
    events: list[dict[str, object]] = []
    worker._Round(job, OnnxRuntimeRunner(1), lambda **event: events.append(event), False, False).run()
    sample = Sample.from_dict(next(event["sample"] for event in events if event["event"] == "result"))  # type: ignore[arg-type]
    assert 0.0 < sample.energy_mj < 3000.0


def test_without_a_meter_a_measurement_has_no_energy(onnx_models, once, monkeypatch):
    if cpu_meter() is not None:
        pytest.skip("this machine has a meter")
    result = next(iter(OnnxRuntimeDevice().measure(onnx_models[:1], once)))
    assert result.energy_mj is None


@pytest.mark.parametrize("provider", ["coreml", "qnn"])
def test_an_accelerator_without_a_meter_is_not_charged_the_processors_energy(provider):
    runner = OnnxRuntimeRunner(1)
    runner._provider = provider
    assert runner.meter() is None
