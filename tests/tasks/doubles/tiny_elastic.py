"""The smallest space that shares weights: widths, kernels and a depth, sliced by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gnomon.search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload
from gnomon.search_spaces.elastic import ElasticModel

MAX_WIDTH = 16


class TinyElasticSpace(SearchSpace):
    """One or two convolutions; the second one's kernel matters only if there is one: 3 x 2 x (1 + 2) networks."""

    name = "tiny_elastic"

    def __init__(
        self, input_shape: tuple[int, ...] = (1, 8, 8), classes: int = 3, batch_norm: bool = True, dropout: float = 0.0
    ) -> None:
        self.input_shape, self.classes = tuple(input_shape), classes
        self.batch_norm, self.dropout = batch_norm, dropout
        decisions = (
            Decision("width", (4, 8, MAX_WIDTH), ordered=True),
            Decision("layer1.kernel", (1, 3), ordered=True),
            Decision("depth", (1, 2), ordered=True),
            Decision("layer2.kernel", (1, 3), {"depth": (2,)}, ordered=True),
        )
        super().__init__(decisions, Workload(self.input_shape))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.input_shape),
            "classes": self.classes,
            "batch_norm": self.batch_norm,
            "dropout": self.dropout,
        }

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        width = int(config["width"])
        layers: list[nn.Module] = []
        for i in range(int(config["depth"])):
            kernel = int(config[f"layer{i + 1}.kernel"])
            inputs = self.input_shape[0] if i == 0 else width
            layers.append(nn.Conv2d(inputs, width, kernel, padding=kernel // 2, bias=False))
            layers += [nn.BatchNorm2d(width)] if self.batch_norm else []
            layers += [nn.ReLU(), nn.Dropout(self.dropout)]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, self.classes))

    def costs(self, genotypes: Genotypes) -> Costs:
        width = np.array([4, 8, MAX_WIDTH])[genotypes[:, 0]].astype(float)
        first, second = (np.array([1, 9])[genotypes[:, gene]] for gene in (1, 3))
        parameters = self.input_shape[0] * width * first + (genotypes[:, 2] == 1) * width**2 * second
        return Costs(parameters, 64 * parameters, parameters, parameters)

    def elastic(self) -> ElasticModel:
        return TinySupernet(self)


class TinySupernet(ElasticModel):
    """All networks of :class:`TinyElasticSpace`: first channels, middles of kernels, first layers."""

    def __init__(self, space: TinyElasticSpace) -> None:
        super().__init__()
        self._space = space
        inputs = (space.input_shape[0], MAX_WIDTH)
        self.convs = nn.ModuleList(nn.Conv2d(n, MAX_WIDTH, 3, bias=False) for n in inputs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(MAX_WIDTH) for _ in inputs if space.batch_norm)
        self.dropout = nn.Dropout(space.dropout)
        self.head = nn.Linear(4 * MAX_WIDTH, space.classes)
        self._config: Mapping[str, Any] = {}
        self.select({"width": MAX_WIDTH, "layer1.kernel": 3, "depth": 2, "layer2.kernel": 3})

    def select(self, config: Mapping[str, Any]) -> None:
        self._space.genotype(config)  # raises
        self._config = dict(config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        width = int(self._config["width"])
        for i in range(int(self._config["depth"])):
            weight = self._weight(i)
            x = functional.conv2d(x, weight, padding=weight.shape[2] // 2)
            if self.norms:
                x = self._normalised(i, x)
            x = self.dropout(functional.relu(x))
        x = functional.adaptive_avg_pool2d(x, 2).flatten(1)
        return functional.linear(x, self.head.weight[:, : 4 * width], self.head.bias)

    def _weight(self, i: int) -> torch.Tensor:
        width = int(self._config["width"])
        weight = self.convs[i].weight[:width, : width if i else None]
        return weight[:, :, 1:2, 1:2] if self._config[f"layer{i + 1}.kernel"] == 1 else weight

    def _normalised(self, i: int, x: torch.Tensor) -> torch.Tensor:
        norm, width = self.norms[i], int(self._config["width"])
        mean, var = norm.running_mean[:width], norm.running_var[:width]
        return functional.batch_norm(
            x, mean, var, norm.weight[:width], norm.bias[:width], self.training, norm.momentum, norm.eps
        )

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        self.select(config)
        width = int(config["width"])
        model = self._space.build(config)
        convs = [m for m in model if isinstance(m, nn.Conv2d)]
        norms = [m for m in model if isinstance(m, nn.BatchNorm2d)]
        with torch.no_grad():
            for i, conv in enumerate(convs):
                conv.weight.copy_(self._weight(i))
            for own, norm in zip(self.norms, norms, strict=False):
                for name in ("weight", "bias", "running_mean", "running_var"):
                    getattr(norm, name).copy_(getattr(own, name)[:width])
            model[-1].weight.copy_(self.head.weight[:, : 4 * width])
            model[-1].bias.copy_(self.head.bias)
        return model.train(self.training)
