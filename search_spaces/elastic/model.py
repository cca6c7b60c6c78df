"""The contract of a weight-shared model of a whole search space (a supernet)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import nn


class ElasticModel(nn.Module, ABC):
    """All networks of a space in one set of weights; ``forward`` runs the one that is selected.

    Freshly made, some network is selected (the space's largest where it has one). Statistics of batch
    norm are one set for all networks: they are estimated anew for the network that is evaluated.
    Runs ``gnomon.testing.ElasticSuite``.
    """

    @abstractmethod
    def select(self, config: Mapping[str, Any]) -> None:
        """Makes ``forward`` run this network, a config of the space, from now on.

        Raises:
            SpaceError: If it is not one of the space.
        """

    @abstractmethod
    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        """A plain module as the space's ``build`` makes it, with copies of its part of the weights and
        statistics: its outputs equal this model's to 1e-6."""

    def sort_channels(self) -> None:
        """Sorts channels by importance where smaller widths take the first ones; by default nothing.

        The largest network's function stays the same. Moments of an optimiser are not sorted: start a new one.
        """
