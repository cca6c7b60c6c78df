from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.search_spaces import Deployable, Graph, TensorSpec, Workload
from gnomon.search_spaces.mobile_cnn import MobileCNN

torch.set_num_threads(1)

IMAGE = (TensorSpec("input", (1, 1, 8, 8), dynamic_axes={0: "batch"}),)


class TinyCNN(nn.Module):
    """Convolution, batch norm (with statistics other than the initial ones), pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


def _image_deployable(
    factory: Callable[[], nn.Module] | None = TinyCNN, specs: tuple[TensorSpec, ...] = IMAGE
) -> Deployable:
    return Deployable("tiny", Workload((1, 8, 8)), {"main": Graph(specs, ("output",), module=factory)})


@pytest.fixture(scope="session")
def image_deployable() -> Callable[..., Deployable]:
    """Makes a deployable of one graph, by default of a fresh TinyCNN."""
    return _image_deployable


@pytest.fixture(scope="session")
def image_specs() -> tuple[TensorSpec, ...]:
    return IMAGE


@pytest.fixture
def tiny() -> TinyCNN:
    torch.manual_seed(3)
    module = TinyCNN()
    module(torch.randn(8, 1, 8, 8) * 2 + 1)  # moves the batch-norm statistics
    return module


@pytest.fixture(scope="session")
def space() -> MobileCNN:
    return MobileCNN(input_shape=(1, 8, 8), classes=3, width=0.25, blocks=2)


@pytest.fixture(scope="session")
def config(space: MobileCNN) -> dict[str, object]:
    return space.config(space.sample(1, np.random.default_rng(1))[0])


@pytest.fixture(scope="session")
def trained(space: MobileCNN, config: dict[str, object]) -> nn.Module:
    """Not the freshly initialised network: a few steps move weights and batch-norm statistics."""
    torch.manual_seed(5)
    module = space.build(config)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        loss = nn.functional.cross_entropy(module(torch.randn(16, 1, 8, 8)), torch.randint(0, 3, (16,)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return module.eval()
