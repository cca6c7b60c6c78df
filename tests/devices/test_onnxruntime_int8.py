"""``precision=int8`` is what runs, what answers and what ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from gnomon.devices import Protocol
from gnomon.devices.answers import random_input, relative_error
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.devices.torch_cpu import TorchCPUDevice
from gnomon.errors import DeviceError, MeasurementError
from gnomon.export import is_quantised
from gnomon.search_spaces import Deployable, Workload
from gnomon.testing import DeviceSuite


class TestOnnxRuntimeInt8(DeviceSuite):
    @pytest.fixture
    def device(self):
        return OnnxRuntimeDevice(precision="int8")

    @pytest.fixture
    def deployables(self, onnx_models):
        return onnx_models

    @pytest.fixture
    def variants(self):
        return [OnnxRuntimeDevice(), OnnxRuntimeDevice(precision="int8", per_channel=False)]


@pytest.fixture
def int8() -> OnnxRuntimeDevice:
    return OnnxRuntimeDevice(precision="int8")


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((1, 8, 16, 16)).astype(np.float32)


def test_the_child_gets_a_quantised_file(
    int8: OnnxRuntimeDevice, onnx_models: list[Deployable], tmp_path: Path
) -> None:
    job = int8.prepare(onnx_models[2], tmp_path)
    path = Path(str(job.graphs["main"].path))
    assert is_quantised(path)
    assert sum(node.op_type == "Conv" for node in onnx.load(path).graph.node) == 8
    assert job.graphs["main"].tolerance == 0.5


def test_a_quantised_file_runs_as_it_is(
    int8: OnnxRuntimeDevice, onnx_models: list[Deployable], once: Protocol, tmp_path: Path
) -> None:
    deployed = int8.deployed(onnx_models[0], tmp_path)
    again = int8.deployed(deployed, tmp_path / "elsewhere")
    assert again.graphs["main"].onnx_path == deployed.graphs["main"].onnx_path == tmp_path / "small.int8.onnx"
    (found,) = int8.measure([deployed], once)
    assert found.verdict in ("good", "noisy"), found.error
    assert found.setting.precision == "int8"


def test_floats_are_left_alone(onnx_models: list[Deployable], tmp_path: Path) -> None:
    assert OnnxRuntimeDevice().deployed(onnx_models[0], tmp_path) == onnx_models[0]
    assert not list(tmp_path.glob("*.int8.onnx"))


def test_answers_are_the_quantised_models(int8: OnnxRuntimeDevice, onnx_models: list[Deployable]) -> None:
    questions = {"input": np.stack([image(seed) for seed in range(3)])}
    exact = OnnxRuntimeDevice().answers(onnx_models[1], questions)["output"]
    rounded = int8.answers(onnx_models[1], questions)["output"]
    assert exact.shape == rounded.shape == (3, 1, 16, 16, 16)
    assert 1e-3 < relative_error(rounded, exact) < 0.1
    assert not np.array_equal(exact[0], exact[1])


def test_answers_of_a_torch_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "doubles"))
    from tiny_space import TinySpace

    deployable = TinySpace().deployable({"width": 8, "layers": 1})
    (spec,) = deployable.graphs["main"].inputs
    answers = TorchCPUDevice().answers(deployable, {spec.name: np.stack([random_input(spec, s) for s in range(2)])})
    assert all(array.shape[0] == 2 and np.isfinite(array).all() for array in answers.values())


def test_a_model_that_does_not_run_gives_no_answers(int8: OnnxRuntimeDevice, onnx_models: list[Deployable]) -> None:
    with pytest.raises(MeasurementError, match="small gives no answers on onnxruntime"):
        int8.answers(onnx_models[0], {"input": np.zeros((1, 1, 3, 16, 16), np.float32)})


def test_recorded_devices_have_no_answers() -> None:
    from gnomon.devices.recorded import RecordedDevice

    with pytest.raises(DeviceError, match="no answers"):
        RecordedDevice.answers(RecordedDevice.__new__(RecordedDevice), Deployable("a", Workload((1,)), {}), {})


def test_ranges_come_from_the_calibration(
    int8: OnnxRuntimeDevice, onnx_models: list[Deployable], tmp_path: Path
) -> None:
    """Inputs ten times as large as those calibrated on are clipped; calibrated on, they are not."""
    large = {"input": 10 * image(5)[None]}
    exact = OnnxRuntimeDevice().answers(onnx_models[0], large)["output"]
    clipped = relative_error(int8.answers(onnx_models[0], large)["output"], exact)
    int8.calibration = [{"input": 10 * image(seed)} for seed in range(8)]
    assert relative_error(int8.answers(onnx_models[0], large)["output"], exact) < 0.1 < clipped


def test_calibration_of_another_shape_is_not_used(int8: OnnxRuntimeDevice, onnx_models: list[Deployable]) -> None:
    """The reference model, too, has an input of that name."""
    int8.calibration = [{"input": np.zeros((1, 3, 4, 4), np.float32)}]
    inputs = int8.calibration_inputs(onnx_models[0].graphs["main"], 3)
    assert [sample["input"].shape for sample in inputs] == [(1, 8, 16, 16)] * 3


def test_a_model_is_converted_once_for_many_questions(
    int8: OnnxRuntimeDevice, onnx_models: list[Deployable], monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[str] = []
    convert = OnnxRuntimeDevice.convert

    def counting(self: OnnxRuntimeDevice, graph, folder: Path) -> Path:
        converted.append(Path(graph.onnx_path).name)
        return convert(self, graph, folder)

    monkeypatch.setattr(OnnxRuntimeDevice, "convert", counting)
    question = {"input": image()[None]}
    first = int8.answers(onnx_models[0], question)["output"]
    np.testing.assert_array_equal(int8.answers(onnx_models[0], question)["output"], first)
    assert converted == ["small.onnx"]
    int8.calibration = [{"input": 10 * image()}]
    assert not np.array_equal(int8.answers(onnx_models[0], question)["output"], first)
    int8.answers(onnx_models[1], question)
    assert converted == ["small.onnx", "small.onnx", "middle.onnx"]
