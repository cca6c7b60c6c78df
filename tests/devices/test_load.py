"""Generated load: it is there, it counts, and it never outlives whoever asked for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gnomon.devices import Protocol
from gnomon.devices.isolation import run_here
from gnomon.devices.jobs import RoundJob
from gnomon.devices.load import MOST, Load, generated
from gnomon.devices.loaded import LoadedDevice
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.recorded import RecordedDevice
from gnomon.devices.remote import RemoteDevice
from gnomon.errors import ConfigError, DeviceError
from gnomon.testing import DeviceSuite

WORDS = "gnomon.devices.load"


def busy_processes(parent: int | None = None) -> list[int]:
    """Process ids of generated load, of this process unless said otherwise."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            above = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if WORDS.encode() in words and above == (parent or os.getpid()):
                found.append(int(folder.name))
    return found


def processor_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("load", [Load(cpu=1), Load(memory=1)], ids=["cpu", "memory"])
def test_it_keeps_a_core_busy(load):
    with generated(load):
        (pid,) = busy_processes()
        before = processor_seconds(pid)
        time.sleep(0.4)
        assert processor_seconds(pid) - before >= 0.08  # of the 0.4 s, on a machine that others use too
    assert not busy_processes()


def test_as_many_as_asked_for():
    with generated(Load(cpu=2, memory=1)):
        assert len(busy_processes()) == 3
    with generated(Load()), generated(None):
        assert not busy_processes()


def test_it_is_gone_after_an_error():
    seen: list[int] = []

    def failing() -> None:
        with generated(Load(cpu=1)):
            seen.extend(busy_processes())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert len(seen) == 1
    assert not busy_processes()


def test_it_dies_with_its_parent(tmp_path):
    """Killed without a chance to clean up."""
    script = f"from {WORDS} import Load, generated\nimport time\nwith generated(Load(cpu=1)):\n"
    script += "    print('up', flush=True)\n    time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    (pid,) = busy_processes(parent.pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    limit = time.monotonic() + 5.0
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    assert not alive(pid)


def test_load_that_ended_is_an_error():
    def interrupted() -> None:
        with generated(Load(cpu=1)):
            os.kill(busy_processes()[0], signal.SIGKILL)
            time.sleep(0.1)

    with pytest.raises(DeviceError, match="a cpu process ended before the measurement"):
        interrupted()


def test_load_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    with pytest.raises(DeviceError, match=r"a memory process did not start: .+"), generated(Load(memory=1)):
        pass


@pytest.mark.parametrize("value", [-1, MOST + 1, 0.5, True, "all"])
def test_levels_are_numbers_of_processes(value):
    with pytest.raises(ConfigError, match=r"load\.cpu"):
        Load(cpu=value)


# ---- A loaded device -------------------------------------------------------------------------


class TestLoadedDevice(DeviceSuite):
    @pytest.fixture
    def device(self):
        return LoadedDevice(OnnxRuntimeDevice(), cpu=1)

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        inner = OnnxRuntimeDevice()
        return [inner, LoadedDevice(inner, cpu=2), LoadedDevice(inner, cpu=0, memory=1)]


def test_the_load_is_there_while_models_are_timed_and_only_then(onnx_models, once):
    seen: list[int] = []
    device = OnnxRuntimeDevice(on_progress=lambda _: seen.append(len(busy_processes())))
    results = list(LoadedDevice(device, cpu=1, memory=1).measure(onnx_models[:2], once))
    assert seen == [2, 2]
    list(device.measure(onnx_models[:1], once))
    assert seen == [2, 2, 0]
    assert not busy_processes()
    for result in results:
        assert result.setting.options["load"] == {"cpu": 1, "memory": 1}
        assert result.setting.device == "onnxruntime"
        # As an application is scheduled.
        assert not result.fingerprint.realtime
        assert not result.fingerprint.pinned


def test_one_core_shared_with_load_is_slower(onnx_models, once, tmp_path):
    """Everything on one core, where the load must show."""
    allowed = os.sched_getaffinity(0)
    device = OnnxRuntimeDevice()
    protocol = replace(once, pin=False, realtime=False, interleave=False, time_cap_s=0.3, min_runs=100)
    model = device.prepare(onnx_models[-1], tmp_path)
    job = RoundJob(device.runner, 1, device.options(), (model,), protocol, import_paths=tuple(sys.path))
    try:
        os.sched_setaffinity(0, [min(allowed)])
        shares = [run_here(replace(job, load=load)).samples[0].contention for load in (None, Load(cpu=2))]
    finally:
        os.sched_setaffinity(0, allowed)
    if shares[0] is None:
        pytest.skip("this system does not count waiting")
    assert shares[1] > 0.3


def test_what_cannot_be_loaded():
    loaded = LoadedDevice(OnnxRuntimeDevice())
    with pytest.raises(ConfigError, match=r"device\.inner"):
        LoadedDevice(loaded)
    with pytest.raises(ConfigError, match=r"device\.inner"):
        LoadedDevice(RecordedDevice.__new__(RecordedDevice))
    with pytest.raises(ConfigError, match=r"device\.inner"):
        RemoteDevice(loaded, host="nowhere")  # the other way round


def test_an_inner_device_that_is_missing_is_named(onnx_models, monkeypatch):
    monkeypatch.setattr(OnnxRuntimeDevice, "unavailable", classmethod(lambda cls: "not installed"))
    with pytest.raises(DeviceError, match="not installed"):
        LoadedDevice(OnnxRuntimeDevice()).measure(onnx_models, Protocol())


def test_a_search_sets_ranges_of_the_inner_device():
    inner = OnnxRuntimeDevice(precision="int8")
    LoadedDevice(inner).calibration = [{"x": 1}]
    assert inner.calibration == [{"x": 1}]
    assert LoadedDevice(inner).calibration is inner.calibration
