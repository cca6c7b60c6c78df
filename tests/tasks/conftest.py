from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gnomon.search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload
from gnomon.tasks.datasets import ImageData, ImageSource
from gnomon.tasks.image_classification import ImageClassification

torch.set_num_threads(1)


@dataclass(frozen=True)
class Blobs(ImageSource):
    """Noisy 8x8 images of three classes: a bright quadrant each. Some are copies."""

    name: ClassVar[str] = "blobs"
    n: int = 180
    seed: int = 0
    copies: int = 12

    def load(self) -> ImageData:
        rng = np.random.default_rng(self.seed)
        labels = np.arange(self.n) % 3
        images = rng.integers(0, 120, (self.n, 1, 8, 8))
        for label, (row, column) in enumerate(((0, 0), (0, 4), (4, 0))):
            images[labels == label, :, row : row + 4, column : column + 4] += 60
        images = np.concatenate([images, images[: self.copies]]).astype(np.uint8)
        labels = np.concatenate([labels, labels[: self.copies]]).astype(np.int64)
        return ImageData(images, labels, ("a", "b", "c"), f"blobs {self.seed}", 1 / 255)


class TinySpace(SearchSpace):
    """Two convolutions of searched width and kernel."""

    name = "tiny"

    def __init__(self, input_shape: tuple[int, ...] = (1, 8, 8), classes: int = 3) -> None:
        self.input_shape, self.classes = tuple(input_shape), classes
        decisions = (Decision("width", (4, 8), ordered=True), Decision("kernel", (1, 3), ordered=True))
        super().__init__(decisions, Workload(self.input_shape))

    def arguments(self) -> dict[str, Any]:
        return {"input_shape": list(self.input_shape), "classes": self.classes}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        width, kernel = int(config["width"]), int(config["kernel"])
        return nn.Sequential(
            nn.Conv2d(self.input_shape[0], width, kernel, padding=kernel // 2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(4 * width, self.classes),
        )

    def costs(self, genotypes: Genotypes) -> Costs:
        raise NotImplementedError


@pytest.fixture
def blobs() -> type[Blobs]:
    return Blobs


@pytest.fixture
def tiny_space() -> TinySpace:
    return TinySpace()


@pytest.fixture
def make_tiny_space() -> type[TinySpace]:
    return TinySpace


@pytest.fixture
def tiny_model() -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return TinySpace().build({"width": 8, "kernel": 3})

    return make


@pytest.fixture
def make_task() -> Callable[..., ImageClassification]:
    def make(seed: int = 0, **training: Any) -> ImageClassification:
        return ImageClassification(Blobs(seed=seed), {"batch_size": 16, "lr": 0.02, **training})

    return make
