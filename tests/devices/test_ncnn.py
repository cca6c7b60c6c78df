"""ncnn through pnnx: the suite, and what both do silently if not told otherwise."""

from __future__ import annotations

import pytest

from gnomon.devices import ncnn
from gnomon.devices.answers import random_input, read_answers, relative_error
from gnomon.devices.ncnn import NcnnDevice, NcnnRunner, batch_axes
from gnomon.devices.onnx_file import deployable_from_onnx
from gnomon.devices.runner import Session
from gnomon.errors import ConfigError, DeviceError, MeasurementError
from gnomon.testing import DeviceSuite

pytestmark = pytest.mark.skipif(NcnnDevice.unavailable() is not None, reason=f"{NcnnDevice.unavailable()}")


class TestNcnn(DeviceSuite):
    @pytest.fixture
    def device(self):
        return NcnnDevice()

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        devices = [NcnnDevice(winograd=False), NcnnDevice(packing=False), NcnnDevice(precision="fp16")]
        threads = NcnnDevice()
        threads.threads = 2  # whatever this machine has
        return [*devices, threads]


def error(device, job, name: str = "main") -> float:
    graph = job.graphs[name]
    inputs = {spec.name: random_input(spec) for spec in graph.inputs}
    found = NcnnRunner(1, **device.options()).load(graph, job)(inputs)[0]
    return relative_error(found, read_answers(graph.answers)[graph.outputs[0]])


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_obeyed(busy_threads, onnx_models, threads):
    assert busy_threads(NcnnDevice(), onnx_models[-1], threads) == threads


def test_half_precision_is_off_unless_asked_for(onnx_models, tmp_path):
    """ncnn's own default is fp16."""
    device = NcnnDevice()
    options = NcnnRunner(1, **device.options()).net(device.prepare(onnx_models[0], tmp_path).graphs["main"]).opt
    formats = [name for name in dir(options) if name.startswith(("use_fp16", "use_bf16"))]
    assert len(formats) >= 5
    assert not any(getattr(options, name) for name in formats)
    assert options.num_threads == 1


def test_precisions_take_effect(odd_graphs, tmp_path):
    """On a fully connected layer: of x86's kernels, only those know fp16."""
    job = NcnnDevice().prepare(odd_graphs.encoder_and_step(tmp_path), tmp_path)
    exact, fp16, bf16 = (error(NcnnDevice(precision=p), job, "encoder") for p in ("fp32", "fp16", "bf16"))
    assert exact < 1e-6
    assert 2e-5 < fp16 < NcnnDevice(precision="fp16").tolerance
    assert 2e-4 < bf16 < NcnnDevice(precision="bf16").tolerance


def test_options_reach_the_runtime(onnx_models, tmp_path):
    device = NcnnDevice(winograd=False, packing=False)
    options = NcnnRunner(1, **device.options()).net(device.prepare(onnx_models[0], tmp_path).graphs["main"]).opt
    assert not options.use_winograd_convolution
    assert not options.use_packing_layout


def test_an_option_that_this_build_lacks_is_an_error(onnx_models, tmp_path):
    job = NcnnDevice().prepare(onnx_models[0], tmp_path)
    runner = NcnnRunner(1)
    runner._options["use_abacus"] = True
    with pytest.raises(DeviceError, match="use_abacus"):
        runner.net(job.graphs["main"])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_free_batch_is_converted_at_the_jobs(onnx_models, tmp_path, cnn_file, batch):
    path = cnn_file(tmp_path / "free.onnx", 8, 2, "batch")
    job = NcnnDevice().prepare(deployable_from_onnx(path, batch=batch), tmp_path)
    Session(NcnnRunner(1), job).check()
    script = (tmp_path / "main" / "model.ncnn.py").read_text()
    assert f"torch.rand({batch}, 8, 16, 16" in script
    assert batch_axes(tmp_path / "main" / "model.ncnn.py") == {"in0": 0, "out0": 0}


def test_nothing_is_written_beside_the_users_file(tmp_path, cnn_file):
    """pnnx leaves a simplified model beside what it reads."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "work").mkdir()
    path = cnn_file(tmp_path / "mine" / "model.onnx", 8, 2)
    NcnnDevice().prepare(deployable_from_onnx(path), tmp_path / "work")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["model.onnx"]


def test_states_and_tokens(odd_graphs, tmp_path):
    for make in (odd_graphs.encoder_and_step, odd_graphs.tokens):
        job = NcnnDevice().prepare(make(tmp_path), tmp_path)
        Session(NcnnRunner(1), job).check()


def test_a_dtype_that_it_lacks_is_named(odd_graphs, tmp_path):
    with pytest.raises(MeasurementError, match=r"dtype='bool': pnnx does not take the dtype of input 'mask'"):
        NcnnDevice().prepare(odd_graphs.mask(tmp_path), tmp_path)


def test_a_crash_of_the_converter_costs_one_measurement(odd_graphs, onnx_models, tmp_path, once):
    """pnnx runs the model on tokens of its own choice, which a vocabulary of two lacks: it crashes."""
    device = NcnnDevice()
    crashing = odd_graphs.tokens(tmp_path, vocabulary=2)
    failed, good = device.measure([crashing, onnx_models[0]], once)
    assert failed.verdict == "failed"
    assert "pnnx" in failed.error
    assert "\n" not in failed.error
    assert good.verdict != "failed"


def test_a_hang_of_the_converter_ends(onnx_models, tmp_path, monkeypatch):
    monkeypatch.setattr(ncnn, "CONVERT_LIMIT_S", 0.001)
    with pytest.raises(MeasurementError, match=r"pnnx gave no result within 0\.001 s"):
        NcnnDevice().prepare(onnx_models[0], tmp_path)


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match=r"device\.precision='int8'"):
        NcnnDevice(precision="int8")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(ncnn, "find_spec", lambda name: None)
    assert NcnnDevice.unavailable() == "ncnn and pnnx not installed: pip install 'gnomon-nas[ncnn]'"
