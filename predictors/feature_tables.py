"""What stands in for the space of a table that lists features in place of architectures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NoReturn

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from ..search_spaces import Costs, Decision, Genotypes, SearchSpace, Workload


class NoArchitectures(SearchSpace):
    """Stands in for the space of a table that names no architectures: whoever asks it anything about
    one is told so. Predictors get it, as they cannot be made without a space."""

    name: ClassVar[str] = "features"

    def __init__(self) -> None:
        super().__init__((Decision("row", ("any",)),), Workload((1,)))

    def arguments(self) -> dict[str, Any]:
        """See :meth:`SearchSpace.arguments`."""
        return {}

    def build(self, config: Mapping[str, Any]) -> NoReturn:
        """Raises SpaceError."""
        self._refuse()

    def costs(self, genotypes: Genotypes) -> Costs:
        """Raises SpaceError."""
        self._refuse()

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Raises SpaceError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise SpaceError("this table lists features, not architectures", field="space", value=self.name)
