"""The contract of a trained model whose modules have replacements, each of which can learn by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from .model import ElasticModel


@dataclass(frozen=True)
class Place:
    """Where a module may be replaced.

    Args:
        original: The trained one.
        replacements: By name: modules that take the original's arguments and answer in its shape.
    """

    original: nn.Module
    replacements: Mapping[str, nn.Module]


class ReplaceableModel(ElasticModel):
    """A trained model and replacements of some of its modules, side by side.

    Freshly made, the trained model is selected.
    """

    @abstractmethod
    def places(self) -> Mapping[str, Place]:
        """Every place by the name of its decision; of an original and its replacements one is a part of a network."""

    @abstractmethod
    def start(self, config: Mapping[str, Any]) -> nn.Module:
        """:meth:`extract`, where parameters that training shall leave as they are ask for no gradient."""
