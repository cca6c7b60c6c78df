"""A search that starts from a model which was trained before."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gnomon.conf.compose import compose
from gnomon.search.setup import build
from gnomon.search.study import run_search
from gnomon.search_spaces.own_model import OwnModel
from gnomon.tasks.datasets import Digits
from tests.search.doubles import study_doubles as doubles


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(64, 10),
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on images in the scale in which the task gives them."""
    digits = Digits().load()
    how = build(compose("search", ["experiment=quick"])).task.preprocessing
    mean, std = (torch.tensor(how[name]).view(-1, 1, 1) for name in ("mean", "std"))
    images = (torch.from_numpy(digits.images).float() * how["scale"] - mean) / std
    labels = torch.from_numpy(digits.labels).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        for _ in range(10):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(model.state_dict(), path)
    return path


def test_a_trained_model_is_ranked_and_finished_without_learning_it_anew(weights: Path, tmp_path: Path) -> None:
    words = [
        "experiment=quick", "space=own_model", f"space.model={{_target_: {__name__}.network}}",
        f"space.weights={weights}", "space.widths=[0.75]", "quality=supernet", "quality.epochs=0", "predictor=macs",
        "strategy=random", "study.references=4", "study.refinements=0", "study.evaluations=2", "study.batch=2",
        "plugins=[tests]", "study.name=mine", f"study.dir={tmp_path}",
        "finalise.budget=1", "finalise.top_k=1", "finalise.max_models=1",
        "task.training.lr=1e-6",
    ]  # fmt: skip
    summary = run_search(compose("search", words), doubles.Silence())[0]
    (model,) = summary.models
    assert model.validation["quality"] > 0.8, "a rate of 1e-6 teaches nothing"
    assert summary.shared_training is not None
    assert summary.shared_training.epochs == 0


def test_a_training_starts_from_the_networks_part_of_the_weights(weights: Path) -> None:
    space = OwnModel({"_target_": f"{__name__}.network"}, (1, 8, 8), weights=str(weights))
    config = space.config(space.sample(1, np.random.default_rng(1))[0])
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(space.initial(config).eval()(x), space.elastic().extract(config).eval()(x))
    assert space.starts_trained
