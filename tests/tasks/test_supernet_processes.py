"""One process and two train the same supernet, up to rounding."""

import multiprocessing
import os
import signal

import pytest
import torch
from torch import nn

from gnomon.errors import TaskError
from gnomon.tasks.datasets import Digits
from gnomon.tasks.image_classification import ImageClassification
from gnomon.tasks.parallel import Processes, run_in_processes
from gnomon.tasks.supernet import SupernetTrainer
from gnomon.tasks.torch_state import seeded
from gnomon.tasks.training_data import TrainingData
from gnomon.tasks.weight_sharing.progressive import Progressive
from gnomon.tasks.weight_sharing.sandwich import Sandwich
from tests.tasks.doubles.tiny_elastic import TinyElasticSpace


@pytest.fixture(scope="module")
def task():
    # Few steps: rounding grows with each. 63 examples a batch cannot be halved.
    return ImageClassification(Digits(), {"batch_size": 63, "optimizer": "sgd", "lr": 0.05}, [0.2, 0.1, 0.1])


def train(task, processes, rule, folder=None, progress=None, **space):
    space = TinyElasticSpace(classes=10, **space)
    with seeded(0):
        model = space.elastic()
    trainer = SupernetTrainer(
        model,
        space,
        task.training_data(),
        task.training,
        rule,
        epochs=2,
        seed=3,
        identity={},
        processes=processes,
        calibration_batches=2,
    )
    return model, trainer.run(folder, progress)


@pytest.mark.parametrize(
    ("rule", "batch_norm"),
    [
        (Sandwich(random=1), True),
        pytest.param(Sandwich(random=1), False, marks=pytest.mark.slow),
        pytest.param(Progressive(networks=1), True, marks=pytest.mark.slow),
    ],
    ids=["sandwich", "sandwich without batch norm", "progressive"],
)
def test_two_processes_train_like_one(task, rule, batch_norm):
    alone, expected = train(task, 1, rule, batch_norm=batch_norm)
    together, found = train(task, 2, rule, batch_norm=batch_norm)
    assert found.losses == pytest.approx(expected.losses, rel=1e-5)
    assert found.choices == expected.choices
    for name, tensor in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    with seeded(0):
        start = TinyElasticSpace(classes=10, batch_norm=batch_norm).elastic().state_dict()
    assert any((start[name] - tensor).abs().max() > 1e-2 for name, tensor in alone.state_dict().items())


@pytest.mark.slow
def test_two_processes_go_on_after_a_kill(task, tmp_path):
    def kill(spent, metric):
        raise KeyboardInterrupt

    rule = Sandwich(random=1)
    undisturbed, expected = train(task, 2, rule)
    with pytest.raises(KeyboardInterrupt):
        train(task, 2, rule, tmp_path, kill)
    assert not multiprocessing.active_children()
    resumed, found = train(task, 2, rule, tmp_path)
    assert found.curves == expected.curves
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in undisturbed.state_dict().items())


def test_a_process_that_dies_is_a_clear_error(task):
    def kill_the_other(spent, metric):
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(TaskError, match=r"lost each other.*goes on"):
        train(task, 2, Sandwich(random=0), progress=kill_the_other)
    assert not multiprocessing.active_children()


def test_what_cannot_be_sent_is_refused(task):
    class Local(TrainingData):  # a class inside a function cannot be pickled
        batches_per_epoch = 1

        def batches(self, seed, epoch): ...

        def logits(self, model, batch): ...

        def loss(self, logits, batch): ...

        def score(self, model, split="validation"): ...

    space = TinyElasticSpace()
    trainer = SupernetTrainer(
        space.elastic(), space, Local(), task.training, Sandwich(), epochs=1, seed=0, identity={}, processes=2
    )
    with pytest.raises(TaskError, match="cannot be sent"):
        trainer.run()


def test_data_that_cannot_be_divided_say_so():
    with pytest.raises(TaskError, match="cannot be divided"):
        TrainingData.part(None, None, 0, 2)


def test_alone_nothing_is_exchanged():
    alone = Processes()
    weight = nn.Parameter(torch.ones(2))
    alone.sum_gradients([weight])
    assert weight.grad is None
    assert (alone.share(5), alone.sum(2.5), alone.agreed(True)) == (1.0, 2.5, True)
    assert run_in_processes(1, lambda processes: processes.count, None) == 1


def unused_parameter(processes):
    """Of three parameters, one is used by all, one by the first process only, and one by nobody."""
    weights = [nn.Parameter(torch.ones(2)) for _ in range(3)]
    weights[0].grad = torch.tensor([1.0, 2.0]) * (1 + processes.rank)
    if processes.is_first:
        weights[1].grad = torch.tensor([5.0, 5.0])
    processes.sum_gradients(weights)
    return [None if w.grad is None else w.grad.tolist() for w in weights]


def test_gradients_are_added_and_unused_parameters_stay_unused():
    assert run_in_processes(2, unused_parameter, unused_parameter) == [[3.0, 6.0], [5.0, 5.0], None]
