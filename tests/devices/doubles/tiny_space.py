"""A space of plain convolutional networks; importable by the measuring child."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from gnomon.search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload


class TinySpace(SearchSpace):
    name = "tiny"

    def __init__(self) -> None:
        super().__init__((Decision("width", (8, 16, 64)), Decision("layers", (1, 2, 8))), Workload((8, 16, 16)))

    def arguments(self) -> dict[str, Any]:
        return {}

    def build(self, config: Mapping[str, Any]) -> Any:
        from torch import nn

        widths = [8, *[config["width"]] * config["layers"]]
        return nn.Sequential(*[nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(widths)])

    def costs(self, genotypes: Genotypes) -> Costs:
        raise NotImplementedError("not needed to measure")
