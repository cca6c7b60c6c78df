"""Every option of the groups ``task`` and ``quality`` makes what it says."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

import gnomon.conf
from gnomon.conf.compose import compose, groups
from gnomon.errors import DataError
from gnomon.tasks import Task
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.recorded import RecordedEvaluator
from gnomon.tasks.train_evaluator import TrainEvaluator
from gnomon.tasks.training_settings import TrainingSettings

CONF = Path(gnomon.conf.__file__).parent


def load(group, option):
    return OmegaConf.load(CONF / group / f"{option}.yaml")


@pytest.mark.parametrize("option", sorted(p.stem for p in (CONF / "task").glob("*.yaml")))
def test_task_options_make_tasks(option):
    task = instantiate(load("task", option), _convert_="object")
    assert isinstance(task, Task)
    if isinstance(task, ImageClassification):
        assert task.name == option


@pytest.mark.parametrize("option", groups()["experiment"])
def test_settings_of_experiments_fit_together(option):
    """A task refuses what cannot be, such as lengths that a batch does not hold."""
    assert isinstance(instantiate(compose("search", [f"experiment={option}"]).task, _convert_="object"), Task)


@pytest.mark.parametrize("option", ["mnist_subset", "digits", "animals", "image_folder", "npz"])
def test_task_options_show_every_training_key(option):
    assert set(load("task", option).training) == set(asdict(TrainingSettings()))


def test_train_option(tiny_space, make_task):
    evaluator = instantiate(load("quality", "train"), space=tiny_space, task=make_task(), _convert_="object")
    assert isinstance(evaluator, TrainEvaluator)


@pytest.mark.parametrize(
    ("quality", "task"), [("recorded", "nasbench201_cifar100"), ("recorded_macro", "nasbench_macro_cifar10")]
)
def test_recorded_options_read_the_published_tables(quality, task):
    node = load("quality", quality)
    try:
        table = instantiate(node.table, _convert_="object")
    except InstantiationException as error:
        if isinstance(error.__cause__, DataError):
            pytest.skip(f"the published tables are not here: {error.__cause__}")
        raise
    made = instantiate(load("task", task), _convert_="object")
    evaluator = RecordedEvaluator(table.space, made, table, node.column)
    for i in np.random.default_rng(0).integers(0, len(table.genotypes), 5):
        evaluation = evaluator.evaluate(table.space.architecture(table.genotypes[i]), seed=0)
        assert evaluation.quality == table.columns["accuracy"][i]
        assert 0 < evaluation.quality < 1
