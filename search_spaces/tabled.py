"""Base of spaces whose costs and features are sums of table look-ups: chains of layers, each chosen apart."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import numpy.typing as npt

from .additive import AdditiveEncoding
from .algebra import Genotypes
from .base import SearchSpace
from .cost_tables import CostTables
from .costs import Costs


class TabledSpace(SearchSpace):
    """A subclass makes ``tables`` once (as a ``cached_property``); costs, features and the inner
    loop's look-up tables follow from it."""

    @property
    @abstractmethod
    def tables(self) -> CostTables:
        """Costs and features of everything that can be chosen."""

    def costs(self, genotypes: Genotypes) -> Costs:
        return self.tables.look_up(genotypes)

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """What runtimes spend time on ``(N, F)``: work, traffic and number of operations by kind, each
        relative to its mean over the space; then choices, if the space adds them. See ``feature_names``."""
        return self.tables.encoding.encode(genotypes)

    @property
    def feature_names(self) -> tuple[str, ...]:
        return self.tables.feature_names

    @property
    def feature_units(self) -> npt.NDArray[np.float64]:
        return self.tables.units

    def additive_encoding(self) -> AdditiveEncoding:
        return self.tables.encoding
