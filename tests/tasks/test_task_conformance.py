import pytest
import torch
from torch import nn

from gnomon.tasks.user import UserTask
from gnomon.testing import TaskSuite


class Base(TaskSuite):
    @pytest.fixture
    def model_factory(self, tiny_model):
        return tiny_model


class TestImageClassification(Base):
    @pytest.fixture
    def task(self, make_task):
        return make_task(shift=1, flip=True)

    @pytest.fixture
    def other_task(self, make_task):
        return make_task(seed=1, shift=1, flip=True)


class TestWithAveragedWeightsAndSgd(Base):
    budget = 2.5

    @pytest.fixture
    def task(self, make_task):
        return make_task(optimizer="sgd", schedule="cosine", ema_decay=0.9, max_grad_norm=1.0)

    @pytest.fixture
    def other_task(self, make_task):
        return make_task(seed=1, optimizer="sgd", schedule="cosine", ema_decay=0.9, max_grad_norm=1.0)


def own_training(model, data, budget, progress):
    """As a user would write it: full batches, torch's global generator, no checkpoint."""
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    validation = torch.from_numpy(data.validation_images)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for epoch in range(int(budget)):
        model.train()
        batch = torch.randperm(len(images))[:64]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()
        model.eval()
        with torch.no_grad():
            right = model(validation).argmax(1).numpy() == data.validation_labels
        progress(epoch + 1, right.mean())
    return {"accuracy": right.mean()}


class TestUserTask(Base):
    resumes = False

    @pytest.fixture
    def task(self, blobs):
        return UserTask(own_training, blobs())

    @pytest.fixture
    def other_task(self, blobs):
        return UserTask(own_training, blobs(seed=1))
