"""Your own trained model as a search space: its sub-networks, in the weights that it has.

Run it as it is: it trains a small MobileNet-like network on scikit-learn's digits, makes it elastic, trains
all sub-networks for a few epochs more, and compares some of them. Or search with it, from this folder::

    PYTHONPATH=. gnomon search space=own_model task=digits quality=supernet plugins=[own_model] \\
        'space.model={_target_: own_model.network}' space.weights=digits.safetensors
"""

import sys

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from gnomon.search_spaces.own_model import OwnModel
from gnomon.tasks.datasets import Digits

BATCH, EPOCHS = 64, 15


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, stride, kernel):
        super().__init__()
        inner = 4 * inputs
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, inner, kernel, stride, kernel // 2, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU(),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.body(x) if self.adds else self.body(x)


def network():
    """What ``space.model._target_`` names: any function or class that gives a torch module."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        InvertedResidual(8, 16, 2, 3), InvertedResidual(16, 16, 1, 5), InvertedResidual(16, 16, 1, 5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip


def train(model, images, labels, epochs, choose=lambda: None):
    """Adam on mini-batches; ``choose`` selects a sub-network before each step."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH):
            choose()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model, images, labels, statistics=None):
    """After estimating batch norm's statistics anew on ``statistics``, which a sub-network needs."""
    if statistics is not None:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                module.momentum = None  # The mean of all batches.
        for batch in statistics.split(BATCH):
            model.train()(batch)
    return float((model.eval()(images).argmax(1) == labels).float().mean())


def main(epochs=EPOCHS):
    torch.set_num_threads(1)  # Enough for networks this small.
    torch.manual_seed(0)
    digits = Digits().load()
    images = torch.from_numpy(digits.images).float() / float(digits.images.max())
    labels = torch.from_numpy(digits.labels).long()
    held = len(images) // 5
    training, validation = (images[held:], labels[held:]), (images[:held], labels[:held])

    mine = network()
    train(mine, *training, epochs)
    print(f"your model: validation accuracy {accuracy(mine, *validation):.3f}")
    save_file(mine.state_dict(), "digits.safetensors")

    space = OwnModel({"_target_": f"{__name__}.network"}, tuple(images.shape[1:]), weights="digits.safetensors")
    for decision in space.decisions:
        print(f"  {decision.name}: {', '.join(map(str, decision.choices))}")
    supernet = space.elastic()
    rng = np.random.default_rng(0)
    train(supernet, *training, epochs, lambda: supernet.select(space.config(space.sample(1, rng)[0])))
    rows = np.concatenate([space.genotype(config)[None] for config in space.named.values()] + [space.sample(3, rng)])
    for row, macs in zip(rows, space.costs(rows).macs, strict=True):
        model = supernet.extract(space.config(row))
        print(f"{macs / 1e6:.2f} MMAC: validation accuracy {accuracy(model, *validation, training[0]):.3f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else EPOCHS)
