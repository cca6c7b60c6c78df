"""OpenVINO: the suite, and what it does silently if not told otherwise."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from gnomon.devices.answers import Array, random_input, read_answers, relative_error
from gnomon.devices.openvino import OpenVINODevice, OpenVINORunner
from gnomon.devices.runner import Session
from gnomon.errors import ConfigError, MeasurementError
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


def answer(device, job) -> Array:
    """The device's answer to the first graph's random input."""
    graph = job.graphs["main"]
    inputs = {spec.name: random_input(spec) for spec in graph.inputs}
    return OpenVINORunner(device.threads, **device.options()).load(graph, job)(inputs)[0]


def error(device, job) -> float:
    return relative_error(answer(device, job), read_answers(job.graphs["main"].answers)["output"])


@pytest.mark.parametrize("threads", [1, 2])
def test_properties_are_read_back_as_asked(job, threads):
    compiled = OpenVINORunner(threads).compile(job.graphs["main"])
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"  # bf16 on capable CPUs if not set
    assert compiled.get_property("INFERENCE_NUM_THREADS") == threads
    assert compiled.get_property("NUM_STREAMS") == 1
    assert compiled.get_property("EXECUTION_MODE_HINT").name == "PERFORMANCE"


def test_a_property_that_is_not_taken_is_an_error(job):
    runner = OpenVINORunner(1)
    runner.properties["OPTIMAL_NUMBER_OF_INFER_REQUESTS"] = 1  # can be read, not set
    with pytest.raises(Exception, match="OPTIMAL_NUMBER_OF_INFER_REQUESTS"):
        runner.compile(job.graphs["main"])


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_threads_than_asked_work(busy_threads, onnx_models, threads):
    # Maybe fewer: OpenVINO leaves all work to one thread while another process holds the other core.
    # That it was asked for as many is test_properties_are_read_back_as_asked.
    assert 1 <= busy_threads(OpenVINODevice(), onnx_models[-1], threads, runs=1000) <= threads


def test_precisions_take_effect(onnx_models, tmp_path):
    fp32, bf16 = OpenVINODevice(), OpenVINODevice(precision="bf16")
    job = fp32.prepare(onnx_models[-1], tmp_path)
    assert error(fp32, job) < 1e-5
    assert 1e-4 < error(bf16, job) < bf16.tolerance


def test_other_inputs(odd_graphs, tmp_path):
    for make in (odd_graphs.tokens, odd_graphs.mask, odd_graphs.encoder_and_step):
        job = OpenVINODevice().prepare(make(tmp_path), tmp_path)
        Session(OpenVINORunner(1), job).check()


def test_a_state_is_fed_by_value(odd_graphs, tmp_path):
    """Four steps give what numpy gives: the request's own output memory is not its next input."""
    job = OpenVINODevice().prepare(odd_graphs.encoder_and_step(tmp_path), tmp_path)
    session = Session(OpenVINORunner(1), job)
    *_, (_, (_, last)) = session._calls()
    x, w = random_input(job.graphs["encoder"].inputs[0]), odd_graphs.weights(8, 8)
    state = np.maximum(x @ w, 0)
    for _ in range(4):
        state = np.tanh(state @ w)
    np.testing.assert_allclose(last, state, rtol=1e-4, atol=1e-6)


# ---- int8 ----------------------------------------------------------------------------------


needs_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="nncf not installed")


@pytest.fixture
def int8():
    return OpenVINODevice(precision="int8", calibration_samples=8)


@needs_nncf
def test_int8_really_runs_in_int8(int8, onnx_models, tmp_path):
    float_answers = read_answers(OpenVINODevice().prepare(onnx_models[1], _new(tmp_path, "f")).graphs["main"].answers)
    job = int8.prepare(onnx_models[1], _new(tmp_path, "q"))
    compiled = OpenVINORunner(1, **int8.options()).compile(job.graphs["main"])
    kinds = {
        op.get_rt_info()["runtimePrecision"].astype(str)
        for op in compiled.get_runtime_model().get_ops()
        if op.get_rt_info()["layerType"].astype(str) == "Convolution"
    }
    assert kinds <= {"i8", "u8"}
    assert kinds
    assert error(int8, job) < 0.05  # to the quantised model in floating point
    assert 1e-3 < relative_error(answer(int8, job), float_answers["output"]) < 0.2


@needs_nncf
def test_int8_ranges_come_from_the_calibration_inputs(int8, onnx_models, tmp_path):
    model = onnx_models[0]
    expected = read_answers(OpenVINODevice().prepare(model, _new(tmp_path, "f")).graphs["main"].answers)["output"]
    int8.calibration = [{"input": 1e-2 * random_input(model.graphs["main"].inputs[0], seed)} for seed in range(4)]
    clipped = answer(int8, int8.prepare(model, _new(tmp_path, "q")))
    assert relative_error(clipped, expected) > 0.5, "inputs beyond the calibrated range are not clipped"


def test_a_wrong_model_is_not_quantised(int8, onnx_models, tmp_path):
    """The quantised model's answers replace those expected only after fp32 was found right."""
    graph, folder = onnx_models[0].graphs["main"], _new(tmp_path, "q")
    wrong = np.ones((1, 8, 16, 16), np.float32)
    np.savez(folder / "answers.npz", output=wrong)
    with pytest.raises(MeasurementError, match="before quantisation, output 'output' differs"):
        int8.convert(graph, folder)


@needs_nncf
def test_quantising_reports_nothing_and_needs_no_torch():
    """NNCF sends its use to a server unless told otherwise, or a test runs."""
    code = (
        "import sys\n"
        "from gnomon.devices.openvino_int8 import _nncf\n"
        "_nncf()\n"
        "from nncf.telemetry.wrapper import NNCFTelemetry, telemetry\n"
        "print(isinstance(telemetry, NNCFTelemetry), 'torch.nn' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.split() == ["False", "False"]


# ---- Arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"execution_mode": "fast"}, "device.execution_mode"),
        ({"precision": "int4"}, "device.precision"),
        ({"calibration_samples": 0}, "device.calibration_samples"),
    ],
)
def test_wrong_arguments_are_named(arguments, field):
    with pytest.raises(ConfigError, match=field):
        OpenVINODevice(**arguments)


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr("gnomon.devices.openvino.find_spec", lambda name: None)
    assert "pip install 'gnomon-nas[openvino]'" in str(OpenVINODevice.unavailable())


def _new(folder, name):
    path = folder / name
    path.mkdir()
    return path
