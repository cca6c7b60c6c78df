"""The adb device against a fake phone that replays transcripts; no phone was ever at hand."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from gnomon import cli
from gnomon.devices import adb
from gnomon.devices.adb import AdbDevice
from gnomon.devices.adb_output import choose_phone, read_benchmark_model, read_perf_test, read_properties, read_thermal
from gnomon.devices.isolation import DeviceLostError
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.errors import ConfigError, DeviceError, MeasurementError
from gnomon.search_spaces import Call, Graph, TensorSpec
from gnomon.testing import DeviceSuite

sys.path.insert(0, str(Path(__file__).parent / "doubles"))
from fake_phone import TRANSCRIPTS, make_phone


def transcript(name: str) -> str:
    return (TRANSCRIPTS / f"{name}.txt").read_text()


@pytest.fixture
def phone(tmp_path, monkeypatch):
    phone = make_phone(tmp_path / "phone")
    monkeypatch.setenv("PATH", str(phone.home / "path"), prepend=":")
    return phone


class TestAdb(DeviceSuite):
    @pytest.fixture
    def device(self, phone):
        return AdbDevice(OnnxRuntimeDevice(), phone.perf_test)

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self, phone):
        return [
            AdbDevice(OnnxRuntimeDevice(), phone.perf_test, taskset="f0"),
            AdbDevice(OnnxRuntimeDevice(), phone.perf_test, provider="xnnpack"),
            AdbDevice(OnnxRuntimeDevice(precision="int8"), phone.perf_test),
        ]


class TfliteDevice(OnnxRuntimeDevice):
    """Gives every model the suffix .tflite: what is in the file matters to no transcript."""

    def convert(self, graph: Graph, folder: Path) -> Path:
        path = folder / "model.tflite"
        path.write_bytes(graph.onnx_path.read_bytes())
        return path


# ---- What is recorded ----------------------------------------------------------------------


def test_the_phone_is_the_setting_and_the_fingerprint(phone, onnx_models, once):
    device = AdbDevice(OnnxRuntimeDevice(), phone.perf_test, taskset="0xF0")
    (result,) = device.measure(onnx_models[:1], once)
    setting, fingerprint = result.setting, result.fingerprint
    assert setting.hardware == "Google Pixel 7, GS201"
    assert (setting.device, setting.options["taskset"]) == ("adb_onnxruntime", "F0")
    assert (fingerprint.cpu, fingerprint.cores, fingerprint.os) == ("GS201", 8, "Android 14")
    assert fingerprint.pinned
    assert result.facts["thermal_status"] == 0
    assert result.peak_memory_bytes == 41250816
    assert setting.runtime.startswith("onnxruntime_perf_test sha256:")
    Path(phone.perf_test).write_text(Path(phone.perf_test).read_text() + "# another build\n")
    other = AdbDevice(OnnxRuntimeDevice(), phone.perf_test, taskset="f0")
    assert other.setting(onnx_models[0].workload).id != setting.id
    assert not phone.left()


def test_benchmark_model_gives_what_it_gives_and_nothing_is_invented(phone, onnx_models, once):
    device = AdbDevice(TfliteDevice(), phone.benchmark_model)
    (result,) = device.measure(onnx_models[:1], once)
    assert (result.minimum, result.median) == pytest.approx((12.385, 12.398))
    assert (result.p10, result.p90) == (None, None)
    assert (result.facts["p5_ms"], result.facts["p95_ms"]) == pytest.approx((12.387, 12.474))
    assert (result.n_runs, result.n_warmup, result.peak_memory_bytes) == (50, 41, 31_500_000)
    assert type(result).from_json(result.to_json()) == result
    with pytest.raises(DeviceError, match=r"device\.inner\.statistic='p90'.*minimum, median"):
        AdbDevice(TfliteDevice(statistic="p90"), phone.benchmark_model).measure(onnx_models[:1], once)


def test_commands_that_the_phone_is_given(phone, onnx_models, once):
    extra = ["--flag=a b; touch pwned", "$(touch pwned)"]
    device = AdbDevice(OnnxRuntimeDevice(), phone.perf_test, taskset="f0", arguments=extra, serial="2A1")
    (result,) = device.measure([replace(onnx_models[0], name="n; touch pwned $(touch pwned)")], once)
    assert result.verdict != "failed", result.error
    (timed,) = [
        call for call in phone.shell_calls() if "0.onnx" not in call and "1.onnx" in call and "perf_test" in call
    ]
    folder = timed.split("LD_LIBRARY_PATH=")[1].split()[0]
    assert timed == (
        f"env LD_LIBRARY_PATH={folder} taskset f0 {folder}/onnxruntime_perf_test"
        " -I -S 0 -e cpu -m times -r 13 -x 1 -y 1"
        f" '--flag=a b; touch pwned' '$(touch pwned)' {folder}/1.onnx {folder}/1.result"
    )
    assert not list(phone.home.rglob("pwned"))
    assert not Path("pwned").exists()
    assert {call[1] for call in phone.calls() if call[0] == "-s"} == {"2A1"}


def test_later_rounds_time_as_long_as_the_protocol_says(phone, onnx_models, quick):
    protocol = replace(quick, time_cap_s=0.1, target_interval=1e-9, max_runs=70)
    (result,) = AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure(onnx_models[:1], protocol)
    runs = [
        int(call.split("-r ")[1].split()[0]) - protocol.warmup_runs for call in phone.shell_calls() if " -r " in call
    ]
    assert runs[1] == protocol.min_runs, "the first round does not know how long a run takes"
    assert protocol.min_runs < runs[-1] <= 70
    assert result.n_runs == runs[1] + runs[3]


def test_free_dimensions_are_given_by_name(phone, onnx_models, once):
    model = onnx.load(onnx_models[0].graphs["main"].onnx_path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch; x"
    onnx.save(model, onnx_models[0].graphs["main"].onnx_path)
    graph = replace(onnx_models[0].graphs["main"], inputs=(TensorSpec("input", (4, 8, 16, 16)),))
    deployable = replace(onnx_models[0], graphs={"main": graph})
    (result,) = AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure([deployable], once)
    assert result.verdict != "failed", result.error
    assert any("-f 'batch; x:4'" in call for call in phone.shell_calls())


def test_libraries_are_pushed_beside_the_program(phone, onnx_models, once, tmp_path):
    (tmp_path / "libonnxruntime.so").write_bytes(b"")
    device = AdbDevice(OnnxRuntimeDevice(), phone.perf_test, libraries=[str(tmp_path / "libonnxruntime.so")])
    list(device.measure(onnx_models[:1], once))
    assert any(call[2] == "push" and call[4].endswith("/libonnxruntime.so") for call in phone.calls() if len(call) > 4)


# ---- Heat ----------------------------------------------------------------------------------


def test_a_phone_that_throttles_is_waited_for_and_said_to_throttle(phone, onnx_models, once, monkeypatch):
    monkeypatch.setattr(adb, "COOLING_LIMIT_S", 0.3)
    monkeypatch.setattr(adb, "COOLING_STEP_S", 0.1)
    phone.say("dumpsys", transcript("thermalservice").replace("Thermal Status: 0", "Thermal Status: 3"))
    start = time.monotonic()
    (result,) = AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure(onnx_models[:1], once)
    assert time.monotonic() - start > 0.3
    assert (result.verdict, result.facts["thermal_status"]) == ("throttled", 3)


# ---- What goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phones", "serial", "message"),
    [
        ({}, None, r"no phone is connected.*USB debugging"),
        ({"2A1": "unauthorized"}, None, r"not ready: unauthorized.*Accept this computer's key"),
        ({"2A1": "offline"}, None, r"not ready: offline"),
        ({"2A1": "no permissions (missing udev rules?); see [http://x]"}, None, r"not ready: no permissions"),
        ({"2A1": "device", "5555": "device"}, None, r"several phones.*2A1, 5555"),
        ({"2A1": "device"}, "77", r"device\.serial='77'.*no such phone is connected.*2A1"),
    ],
)
def test_phones_that_cannot_be_used(phone, onnx_models, once, phones, serial, message):
    phone.set(phones=phones)
    with pytest.raises(DeviceError, match=message):
        AdbDevice(OnnxRuntimeDevice(), phone.perf_test, serial=serial).measure(onnx_models, once)


def test_a_phone_that_is_unplugged_keeps_what_was_measured(phone, onnx_models, quick):
    device = AdbDevice(OnnxRuntimeDevice(), phone.perf_test)
    protocol = replace(quick, target_interval=1e-9)
    device.on_progress = lambda progress: phone.set(gone_after=0) if progress.round == 2 else None
    results = list(device.measure(onnx_models, protocol))
    assert sorted(len(m.process_values) for m in results) == [1, 1, 2]
    with pytest.raises(DeviceLostError, match=r"not found.*goes on when the phone is back"):
        device.measure(onnx_models, protocol)
    phone.set(gone_after=1 << 30)
    device.on_progress = None
    assert [m.verdict == "failed" for m in device.measure(onnx_models, protocol)] == [False] * 3


def test_a_hang_costs_its_time_limit(phone, onnx_models, once):
    model = onnx.load(onnx_models[1].graphs["main"].onnx_path)
    model.graph.doc_string = "convolutional hang"
    onnx.save(model, onnx_models[1].graphs["main"].onnx_path)
    first, hang, last = AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure(onnx_models, once)
    assert "1.5 s (protocol.timeout_s)" in hang.error
    assert first.verdict != "failed"
    assert last.verdict != "failed"
    assert any(call.startswith("pkill -9 -f '^/data/local/tmp/gnomon-") for call in phone.shell_calls())


def test_a_program_that_does_not_run_is_a_device_error(phone, onnx_models, once):
    Path(phone.perf_test).write_text("#!/bin/sh\necho 'CANNOT LINK EXECUTABLE: library not found' >&2; exit 1\n")
    with pytest.raises(DeviceError, match=r"device\.benchmark=.*CANNOT LINK EXECUTABLE"):
        AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure(onnx_models, once)


def test_plans_that_programs_cannot_time(phone, onnx_models, once):
    model = replace(onnx_models[0], plan=(Call("main", times=3),))
    with pytest.raises(DeviceError, match="one graph that is called once"):
        AdbDevice(OnnxRuntimeDevice(), phone.perf_test).measure([model], once)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"device\.benchmark=None"),
        ({"benchmark": "b", "taskset": "f0; rm"}, r"device\.taskset='f0; rm'"),
        ({"benchmark": "b", "inner": TorchCPUDevice()}, r"device\.inner"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        AdbDevice(**{"inner": OnnxRuntimeDevice(), **arguments})


def test_a_program_that_is_missing(phone, onnx_models, once):
    with pytest.raises(ConfigError, match=r"device\.benchmark=.*no such file"):
        AdbDevice(OnnxRuntimeDevice(), str(phone.home / "none")).measure(onnx_models, once)


def test_adb_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "platform-tools" in AdbDevice.unavailable()


def test_the_command_line(phone, onnx_models, capsys):
    words = ["measure", f"from={onnx_models[0].graphs['main'].onnx_path}", "device=adb"]
    words += [f"device.benchmark={phone.perf_test}", "device.taskset=80", "protocol.processes=2"]
    words += ["protocol.min_processes=2"]
    assert cli.main(words) == 0
    assert "Google Pixel 7, GS201" in capsys.readouterr().out


# ---- Parsing -------------------------------------------------------------------------------


def test_benchmark_model_without_quantiles_is_refused():
    with pytest.raises(MeasurementError, match=r"prints no median, p5, p95.*newer"):
        read_benchmark_model(transcript("benchmark_model_old"))
    with pytest.raises(MeasurementError, match=r"no statistics: ERROR: Failed to allocate"):
        read_benchmark_model("INFO: STARTING!\nERROR: Failed to allocate tensors!\n")


def test_perf_test_results_are_exact_and_leave_the_first_runs_out():
    text = "a,b,0.009,100,50,0\n" + "".join(f"a,b,{0.001 * k},{100 + k},50,{k}\n" for k in range(1, 12))
    run = read_perf_test(text, n_warmup=1)
    quantiles = run.quantiles
    assert (quantiles.minimum, quantiles.p10, quantiles.median, quantiles.p90) == pytest.approx((1.0, 2.0, 6.0, 10.0))
    assert (run.n_runs, run.n_warmup, run.peak_memory_bytes) == (11, 1, 111)
    for broken in ("", "m,0.1,5,5,0\n", "m,nan?,5,5,0\nm,0.1,5,5,1\n", "Segmentation fault\n"):
        with pytest.raises(MeasurementError):
            read_perf_test(broken, n_warmup=1)


def test_thermal_and_properties():
    assert read_thermal(transcript("thermalservice")) == (0, 38.4)
    assert read_thermal("Can't find service: thermalservice\n") == (None, None)
    assert read_properties("[a.b]: [c]\r\n[d]: []\n") == {"a.b": "c", "d": ""}


def test_choose_phone_reads_what_adb_prints():
    text = "List of devices attached\n* daemon started successfully\nemulator-5554\tdevice\n\n"
    assert choose_phone(text, None) == "emulator-5554"


def test_the_command_line_shows_the_quantiles_that_there_are(phone, onnx_models, once, capsys):
    from gnomon.commands.measure import _text

    (result,) = AdbDevice(TfliteDevice(), phone.benchmark_model).measure(onnx_models[:1], once)
    assert "\n  median 12.4 ms\n" in _text(result, None)
