from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from gnomon.errors import ExportError, SchemaError, StudyError
from gnomon.export import (
    ExportedModel,
    ModelCard,
    ModelMetadata,
    build_model,
    export_model,
    load_architecture,
    load_model,
    read_card,
    read_metadata,
    render_card,
    write_card,
)
from gnomon.records import Fingerprint, Measurement, Setting, Workload
from gnomon.search.instantiate import instantiate
from gnomon.search_spaces import Deployable
from gnomon.search_spaces.mobile_cnn import MobileCNN

FILES = ("architecture.json", "card.json", "card.md", "config.yaml", "model.onnx", "weights.safetensors")


@pytest.fixture(scope="module")
def deployable(space: MobileCNN, config: dict[str, object]) -> Deployable:
    return space.deployable(config)


@pytest.fixture(scope="module")
def card(deployable: Deployable) -> ModelCard:
    metadata = ModelMetadata(
        deployable.architecture, {"name": "shapes"}, ("circle", "square", "a|b"), {"mean": [0.5], "std": [0.5]}
    )
    training = {"budget": 12, "budget_unit": "epochs", "seed": 4}
    return ModelCard("shapes model", metadata, "accuracy", {"accuracy": 0.9312}, training=training, predicted_ms=1.25)


@pytest.fixture(scope="module")
def exported(
    deployable: Deployable, trained: nn.Module, card: ModelCard, tmp_path_factory: pytest.TempPathFactory
) -> ExportedModel:
    folder = tmp_path_factory.mktemp("models") / "model_1"
    return export_model(deployable, trained, folder, card, config="task:\n  _target_: gnomon.tasks.x\n")


@pytest.fixture(scope="module")
def measurement(space: MobileCNN) -> Measurement:
    setting = Setting("onnxruntime", "x86", "onnxruntime 1.2", Workload((1, 8, 8)))
    fingerprint = Fingerprint("Some CPU", 2, 2**33, "Linux", "3.11", "onnxruntime 1.2", 1, "fp32", load_1min=0.5)
    return Measurement(
        "a", setting, "p", "minimum", "good", fingerprint, "2026-01-01T00:00:00+00:00",
        minimum=1.5, p10=1.6, median=1.7, p90=1.9, interval=(1.48, 1.53), process_values=(1.5, 1.51), n_runs=900,
    )  # fmt: skip


def test_folder_is_complete_and_points_at_itself(exported: ExportedModel) -> None:
    assert exported.files == FILES
    assert sorted(path.name for path in exported.folder.iterdir()) == list(FILES)
    assert exported.deployable.graphs["main"].onnx_path == exported.folder / "model.onnx"
    assert 0 < exported.max_abs_error < 1e-4


def test_torch_module_comes_back(exported: ExportedModel, trained: nn.Module) -> None:
    x = torch.randn(4, 1, 8, 8)
    torch.manual_seed(0)
    state = torch.random.get_rng_state()
    loaded = load_model(exported.folder)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(x), trained(x))
    found = onnxruntime.InferenceSession(str(exported.folder / "model.onnx")).run(None, {"input": x.numpy()})[0]
    np.testing.assert_allclose(found, trained(x).detach().numpy(), atol=1e-4)


def test_build_model_has_fresh_weights_by_seed(exported: ExportedModel, trained: nn.Module) -> None:
    one, again, other = (
        torch.cat([p.flatten() for p in build_model(exported.folder, seed=seed).parameters()]) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert len(one) == sum(p.numel() for p in trained.parameters())


def test_identity_is_kept_everywhere(exported: ExportedModel, deployable: Deployable, card: ModelCard) -> None:
    assert load_architecture(exported.folder) == deployable.architecture
    assert read_metadata(exported.folder / "model.onnx") == card.metadata
    assert read_card(exported.folder) == exported.card
    assert exported.card.inputs == {"input": ("float32", ("batch", 1, 8, 8))}


def code_of(markdown: str, heading: str) -> str:
    found = re.search(rf"## {re.escape(heading)}\n.*?```python\n(.*?)```", markdown, flags=re.DOTALL)
    assert found, f"no code under {heading}"
    return found.group(1)


def test_code_in_the_card_works(exported: ExportedModel) -> None:
    """The very text of the card, run by a fresh Python in the model's folder."""
    card = (exported.folder / "card.md").read_text()
    code = code_of(card, "Use it with ONNX Runtime") + code_of(card, "Use it with torch")
    code += "\nimport torch\nprint(abs(model(torch.zeros(1, 1, 8, 8)).detach().numpy() - outputs[0]).max())"
    result = subprocess.run([sys.executable, "-c", code], cwd=exported.folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    label, difference = result.stdout.splitlines()
    assert label in ("['circle']", "['square']", "['a|b']")
    assert float(difference) < 1e-4


TASK = """
task:
  _target_: gnomon.tasks.image_classification.ImageClassification
  data:
    _target_: gnomon.tasks.datasets.Digits
"""


@pytest.mark.slow
def test_training_code_in_the_card_trains_the_same_weights_again(tmp_path: Path) -> None:
    space = MobileCNN(input_shape=(1, 8, 8), classes=10, width=0.25, blocks=2)
    deployable = space.deployable(space.config(space.sample(1, np.random.default_rng(2))[0]))
    assert deployable.architecture is not None
    (tmp_path / "architecture.json").write_text(deployable.architecture.to_json())
    model = build_model(tmp_path, seed=4)
    task = instantiate(OmegaConf.create(TASK).task, "task")
    task.train(model, budget=1, seed=4)
    card = ModelCard("digits", ModelMetadata(deployable.architecture), training={"budget": 1, "seed": 4})
    export_model(deployable, model, tmp_path, card, config=TASK)

    code = code_of((tmp_path / "card.md").read_text(), "Train it again")
    code += "from safetensors.torch import save_model\nsave_model(model, 'again.safetensors')\n"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "quality=" in result.stdout
    first, again = (load_file(tmp_path / name) for name in ("weights.safetensors", "again.safetensors"))
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_card_says_what_is_known_and_only_that(exported: ExportedModel, measurement: Measurement) -> None:
    before = (exported.folder / "card.md").read_text()
    assert "0.9312" in before
    assert "1.25 ms" in before
    assert "measured" not in before
    verified = dataclasses.replace(exported.card, measurement=measurement, test={"accuracy": 0.9201})
    text = render_card(verified)
    for fact in ("0.9201", "**1.5 ms** (minimum, 90 % interval 1.48 to 1.53 ms)", "Some CPU", "good"):
        assert fact in text


def test_card_is_written_again(exported: ExportedModel, measurement: Measurement, tmp_path: Path) -> None:
    write_card(tmp_path, exported.card)
    verified = dataclasses.replace(read_card(tmp_path), measurement=measurement, test={"accuracy": 0.5})
    write_card(tmp_path, verified)
    assert read_card(tmp_path) == verified
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "card.md"]


def test_failed_measurement_in_the_card(exported: ExportedModel, measurement: Measurement) -> None:
    failed = dataclasses.replace(measurement, verdict="failed", minimum=None, error="time limit")
    assert "failed: time limit" in render_card(dataclasses.replace(exported.card, measurement=failed))


def test_failure_leaves_an_older_export_as_it_was(exported: ExportedModel, trained: nn.Module, card: ModelCard) -> None:
    before = {path.name: path.read_bytes() for path in exported.folder.iterdir()}
    with pytest.raises(ExportError, match="no trained module"):
        export_model(exported.deployable, trained, exported.folder, card, modules={"other": trained})
    with pytest.raises(ExportError, match="tolerance"):
        export_model(exported.deployable, trained, exported.folder, card, tolerance=-1.0)
    assert {path.name: path.read_bytes() for path in exported.folder.iterdir()} == before


def test_failure_leaves_no_new_folder(deployable: Deployable, card: ModelCard, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot export"):
        export_model(deployable, nn.Linear(3, 3), tmp_path / "new", card)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_cleared(
    deployable: Deployable, trained: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    (tmp_path / ".partial").mkdir()
    (tmp_path / ".partial" / "weights.safetensors").write_bytes(b"half")
    exported = export_model(deployable, trained, tmp_path, card)
    assert "config.yaml" not in exported.files
    assert "Train it again" not in (tmp_path / "card.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == list(exported.files)


@pytest.mark.parametrize("name", ["architecture.json", "weights.safetensors"])
def test_damaged_and_missing_files(name: str, exported: ExportedModel, tmp_path: Path) -> None:
    for path in exported.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_bytes((exported.folder / name).read_bytes()[:40])
    with pytest.raises(SchemaError, match=name):
        load_model(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(SchemaError, match=name):
        load_model(tmp_path)


def test_weights_of_another_network(exported: ExportedModel, tmp_path: Path) -> None:
    (tmp_path / "architecture.json").write_bytes((exported.folder / "architecture.json").read_bytes())
    save_file({"weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(SchemaError, match=r"weights\.safetensors") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_folder_that_cannot_be_written(
    deployable: Deployable, trained: nn.Module, card: ModelCard, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        export_model(deployable, trained, tmp_path / "file" / "model", card)
