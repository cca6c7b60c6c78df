"""A study on a quantising device: calibrated on the task, scored as quantised, and that very file is verified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gnomon.devices import Protocol
from gnomon.devices.onnxruntime import OnnxRuntimeDevice
from gnomon.errors import ConfigError
from gnomon.export import export_deployable, is_quantised, read_card
from gnomon.predictors import LatencyModel
from gnomon.search import History, Problem
from gnomon.search.deployment import CALIBRATION_EXAMPLES, deploy, set_calibration
from gnomon.search.finalise import finalise
from gnomon.search.history import Trial
from gnomon.search.objectives import ParetoObjective
from gnomon.search.on_device import OnDevice
from gnomon.search.setup import Components, FinaliseSettings, StudySettings
from gnomon.search.trained_model import recipe
from gnomon.search_spaces import Deployable
from gnomon.tasks import Evaluator
from tests.search.doubles import study_doubles as doubles

QUICK = Protocol(processes=1, min_processes=1, warmup_runs=1, min_runs=5, time_cap_s=0.01, target_interval=0.9)


class GeneSum(LatencyModel):
    def predict(self, genotypes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return 1.0 + genotypes.sum(axis=1), np.full(len(genotypes), 0.1)


class HasWeights(Evaluator):
    def evaluate(self, architecture: Any, *, seed: int, progress: Any = None) -> Any:
        raise NotImplementedError("finalising evaluates nothing")

    def identity(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def components(tmp_path: Path) -> Any:
    space, task, device = doubles.TrainableSpace(), doubles.CountingTask(), OnnxRuntimeDevice(precision="int8")
    set_calibration(device, space, task)
    return Components(
        config={},
        space=space,
        task=task,
        device=device,
        protocol=QUICK,
        evaluator=HasWeights(),
        predictor=None,  # type: ignore[arg-type]
        strategy=None,  # type: ignore[arg-type]
        objective=ParetoObjective(),
        study=StudySettings("study", str(tmp_path), "", str(tmp_path / "measurements.sqlite")),
        finalise=FinaliseSettings(budget=2.0, top_k=1, max_models=1),
    )


def test_what_is_quantised_is_scored_verified_and_shipped(components: Any, tmp_path: Path) -> None:
    space, task = components.space, components.task
    history = History((Trial(0, np.array([3, 1], np.int8), "complete", 0.9, (-0.9, 5.0), -0.1),))
    (row,) = finalise(Problem(space, ParetoObjective(), GeneSum()), components, history)
    folder = tmp_path / row.folder
    assert row.files[:2] == ("model.int8.onnx", "model.onnx")
    assert is_quantised(folder / "model.int8.onnx")
    assert row.test == task.score(folder / "model.int8.onnx", "test")
    assert row.validation["quality"] == task.score(folder / "model.int8.onnx", "validation")["accuracy"]
    assert row.fp32["test"] == task.score(folder / "model.onnx", "test")
    assert row.fp32["test"]["loss"] != row.test["loss"]
    assert row.accepted
    assert row.measurement is not None
    assert row.measurement.setting.precision == "int8"
    card = read_card(folder)
    assert (card.files, card.fp32_file) == (("model.int8.onnx",), "model.onnx")
    text = (folder / "card.md").read_text()
    assert "| metric | validation | test | validation in fp32 | test in fp32 |" in text
    assert 'InferenceSession("model.int8.onnx"' in text


def test_calibration_is_of_the_train_split(components: Any) -> None:
    samples, task = components.device.calibration, components.task
    assert len(samples) == CALIBRATION_EXAMPLES
    assert {array.shape for sample in samples for array in sample.values()} == {(1, 1, 8, 8)}
    train = {array.tobytes() for array in task.data.normalised("train")}
    assert all(array[0].tobytes() in train for sample in samples for array in sample.values())


def test_a_task_without_examples_is_refused(components: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components.task, "examples", lambda n: None)
    with pytest.raises(ConfigError, match=r"precision.*int8.*examples"):
        set_calibration(OnnxRuntimeDevice(precision="int8"), components.space, components.task)
    exact = OnnxRuntimeDevice()
    set_calibration(exact, components.space, components.task)
    assert exact.calibration is None


def test_another_precision_is_another_recipe(components: Any) -> None:
    exact = replace(components, device=OnnxRuntimeDevice())
    coarse = replace(components, device=OnnxRuntimeDevice(precision="int8", per_channel=False))
    assert len({recipe(components), recipe(exact), recipe(coarse)}) == 3


class OwnFormat(OnnxRuntimeDevice):
    """Quantises while it converts, as runtimes with a format of their own do: no ONNX file shows it."""

    def ship(self, graph: Any, folder: Path) -> Path:
        return Path(graph.onnx_path)


def test_a_runtime_without_a_file_of_its_own_answers_itself(components: Any, tmp_path: Path) -> None:
    space, device = components.space, OwnFormat(precision="int8")
    device.calibration = components.device.calibration
    exported = export_deployable(space.deployable({"width": 8, "kernel": 3}), tmp_path, direct=True)
    deployed = deploy(device, exported, tmp_path)
    assert deployed.file == ""
    assert isinstance(deployed.model, OnDevice)
    inputs = torch.from_numpy(components.task.examples(5))
    path = quantised_file(components.device, exported, tmp_path)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(
        deployed.model(inputs).numpy(), session.run(None, {"input": inputs.numpy()})[0], rtol=0.2, atol=0.05
    )
    assert 0.0 <= deployed.scores(components.task, "validation")["accuracy"] <= 1.0


def quantised_file(device: OnnxRuntimeDevice, exported: Deployable, folder: Path) -> Path:
    path = device.deployed(exported, folder).graphs["main"].onnx_path
    assert path is not None
    return path


def test_any_number_of_examples_at_any_batch(components: Any, tmp_path: Path) -> None:
    """The last batch is filled up; the filling is not among the answers."""

    class Echo:
        def answers(self, deployable: Deployable, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            (array,) = inputs.values()
            assert array.shape == (2, 4, 3)
            return {"output": 2 * array}

    deployable = components.space.deployable({"width": 2, "kernel": 1})
    deployable = replace(deployable, workload=replace(deployable.workload, batch=4))
    inputs = torch.arange(15.0).reshape(5, 3)
    torch.testing.assert_close(OnDevice(Echo(), deployable)(inputs), 2 * inputs)  # type: ignore[arg-type]
