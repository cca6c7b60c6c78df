"""Your own training function as a task: ``train(model, data, budget) -> metrics``.

Run it as it is for one training, or search with it, from the folder that holds this file::

    PYTHONPATH=. gnomon search --config-dir my_configs task=own plugins=[own_training]

with ``my_configs/task/own.yaml``::

    _target_: gnomon.tasks.user.UserTask
    train: {_target_: own_training.train, _partial_: true}
    data: {_target_: gnomon.tasks.datasets.Digits}
"""

import torch
from torch import nn

from gnomon.tasks.datasets import Digits
from gnomon.tasks.user import UserTask


def train(model, data, budget, progress=None):
    """Plain Adam on mini-batches of 64; ``data`` has train and validation arrays, never test."""
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(int(budget)):
        model.train()
        for batch in torch.randperm(len(images)).split(64):  # Seeded by Gnomon.
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
        accuracy = validate(model, data)
        if progress is not None:
            progress(epoch + 1, accuracy)
    return {"accuracy": accuracy}


@torch.no_grad()
def validate(model, data):
    model.eval()
    predicted = model(torch.from_numpy(data.validation_images)).argmax(1).numpy()
    return float((predicted == data.validation_labels).mean())


def main():
    task = UserTask(train, Digits())
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip
    evaluation = task.train(model, 10, seed=0)
    print(f"validation accuracy by epoch: {', '.join(f'{value:.3f}' for value in evaluation.curve)}")
    print(f"test accuracy: {task.score(model, 'test')['accuracy']:.3f}")


if __name__ == "__main__":
    main()
