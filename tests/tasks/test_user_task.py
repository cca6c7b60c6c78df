import functools
import random

import numpy as np
import pytest
import torch

from gnomon.errors import ConfigError, TaskError
from gnomon.tasks.base import StopTraining
from gnomon.tasks.user import TrainingData, UserTask


def good(model, data, budget):
    return {"accuracy": 0.5, "f1": 0.25}


def test_the_function_gets_model_data_and_budget(blobs, tiny_model):
    seen = []

    def train(model, data, budget):
        seen.append((model, data, budget))
        return {"accuracy": 0.5}

    model = tiny_model()
    evaluation = UserTask(train, blobs()).train(model, 4, seed=1)
    assert evaluation.quality == 0.5
    assert evaluation.curve == (0.5,)
    ((got_model, data, budget),) = seen
    assert got_model is model
    assert budget == 4
    assert isinstance(data, TrainingData)
    assert data.train_images.shape[1:] == (1, 8, 8)
    assert data.train_images.mean() == pytest.approx(0, abs=1e-5)
    assert not hasattr(data, "test_images")


def test_optional_arguments_are_given_to_those_who_ask(blobs, tiny_model, tmp_path):
    def train(model, data, budget, seed, checkpoint=None):
        return {"accuracy": float(seed == 7 and checkpoint == tmp_path)}

    assert UserTask(train, blobs()).train(tiny_model(), 1, seed=7, checkpoint=tmp_path).quality == 1.0


def test_all_random_numbers_are_seeded_and_put_back(blobs, tiny_model):
    def train(model, data, budget):
        return {"accuracy": torch.rand(1).item() + np.random.rand() + random.random()}  # noqa: NPY002

    task = UserTask(train, blobs())
    random.seed(1)
    first = task.train(tiny_model(), 1, seed=1).quality
    after = random.random()
    assert task.train(tiny_model(), 1, seed=1).quality == first
    assert task.train(tiny_model(), 1, seed=2).quality != first
    random.seed(1)
    assert random.random() == after


def test_another_metric_is_the_quality(blobs, tiny_model):
    def score(predict, data, split):
        return {"f1": float(predict(data.normalised(split)).shape[0])}

    task = UserTask(good, blobs(), metric="f1", score=score)
    assert task.train(tiny_model(), 1, seed=0).quality == 0.25
    assert task.score(tiny_model(), "test") == {"f1": float(task._images.splits.sizes["test"])}


def test_stop_before_the_end(blobs, tiny_model):
    def train(model, data, budget, progress):
        for epoch in range(int(budget)):
            progress(epoch + 1, 0.1 * (epoch + 1))
        return {"accuracy": 1.0}

    def stop(spent, metric):
        if spent == 2:
            raise StopTraining

    evaluation = UserTask(train, blobs()).train(tiny_model(), 5, seed=0, progress=stop)
    assert (evaluation.budget, evaluation.quality, evaluation.curve) == (2.0, 0.2, (0.1, 0.2))


def test_any_object_as_data(tiny_model):
    sensor = {"train": np.zeros((4, 16)), "test": np.ones((2, 16))}

    def train(model, data, budget):
        return {"score": 1.0 if data is sensor else 0.0}

    def score(predict, data, split):
        return {"score": float(data[split].sum())}

    task = UserTask(
        train, sensor, metric="score", score=score, input_shape=(16,), labels=["low", "high"], identity={"data": "s1"}
    )
    assert task.train(tiny_model(), 1, seed=0).quality == 1.0
    assert task.score(torch.nn.Identity(), "test") == {"score": 32.0}
    assert task.input_shape == (16,)
    assert task.labels == ("low", "high")
    assert task.identity()["data"] == "s1"
    assert task.example_keys("test") is None


@pytest.mark.parametrize("missing", ["score", "input_shape", "labels"])
def test_what_other_data_need(missing):
    arguments = {"score": good, "input_shape": (1,), "labels": ["a"], missing: None}
    with pytest.raises(ConfigError, match=rf"task\.{missing}"):
        UserTask(good, object(), **arguments)


@pytest.mark.parametrize("returned", [None, {"loss": 1.0}, 0.9, {"accuracy": float("nan")}])
def test_useless_returns_are_refused(blobs, tiny_model, returned):
    with pytest.raises(TaskError, match=r"must return|not finite"):
        UserTask(lambda model, data, budget: returned, blobs()).train(tiny_model(), 1, seed=0)


def test_failures_name_the_function(blobs, tiny_model):
    def broken(model, data, budget):
        raise ValueError("no such layer")

    with pytest.raises(TaskError, match=r"broken failed: ValueError: no such layer"):
        UserTask(broken, blobs()).train(tiny_model(), 1, seed=0)


def test_train_must_be_callable(blobs):
    with pytest.raises(ConfigError, match="_partial_: true"):
        UserTask("my_package.train", blobs())


def test_identity_names_the_function_and_its_arguments(blobs):
    identity = UserTask(functools.partial(good, budget=3), blobs()).identity()
    assert identity["train"].endswith(".good(budget=3)")


def test_one_target_in_a_config_is_enough(tmp_path, monkeypatch, tiny_model):
    from hydra.utils import instantiate

    (tmp_path / "my_training_module.py").write_text("def train(model, data, budget):\n    return {'accuracy': 0.75}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    task = instantiate(
        {
            "_target_": "gnomon.tasks.user.UserTask",
            "train": {"_target_": "my_training_module.train", "_partial_": True},
            "data": {"_target_": "gnomon.tasks.datasets.Digits"},
        },
        _convert_="object",
    )
    assert task.train(tiny_model(), 1, seed=0).quality == 0.75
    assert len(task.labels) == 10
