"""Zero-cost proxies as a cheap stand-in for quality, for strategies: without a task, on noise.

Shapes: N architectures, D decisions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import TaskError
from ...search_spaces import Genotypes, SearchSpace
from .base import Proxy
from .ranks import ReferenceRanks
from .scorer import NetworkScorer

FloatArray = npt.NDArray[np.float64]


class ProxyRanking:
    """Ranks architectures among each other by proxies on Gaussian inputs and random labels.

    Args:
        proxies: One or more, combined by rank (:class:`~gnomon.tasks.proxies.ranks.ReferenceRanks`).
        batch_size, repeats, store, threads: See :class:`~gnomon.tasks.proxies.scorer.NetworkScorer`.
    """

    def __init__(
        self,
        proxies: Sequence[Proxy],
        batch_size: int = 32,
        repeats: int = 1,
        store: Path | str | None = None,
        threads: int | None = 1,
    ) -> None:
        self.proxies = list(proxies)
        self._options = {"batch_size": batch_size, "repeats": repeats, "store": store, "threads": threads}

    def quality(self, space: SearchSpace, genotypes: Genotypes, seed: int) -> FloatArray:
        """0 to 1 ``(N,)``, larger is better; deterministic by seed.

        Raises:
            TaskError: If the networks cannot be built or run.
        """
        from ..recorded import RecordedTask

        shape = space.workload.input_shape
        task = RecordedTask("noise", shape, _outputs(space, genotypes[0]))
        scorer = NetworkScorer(space, task, self.proxies, inputs="gaussian", **self._options)  # type: ignore[arg-type]
        values = scorer.scores(genotypes, seed)
        return ReferenceRanks(values).combined(values)

    def settings(self) -> dict[str, Any]:
        """Constructor arguments on which the ranking depends, as JSON."""
        return {
            "proxies": [
                {"_target_": f"{type(proxy).__module__}.{type(proxy).__qualname__}", **proxy.settings()}
                for proxy in self.proxies
            ],
            "batch_size": self._options["batch_size"],
            "repeats": self._options["repeats"],
        }


def _outputs(space: SearchSpace, row: Genotypes) -> int:
    """Number of outputs of a space's networks."""
    import torch

    from ..torch_state import seeded

    with seeded(0), torch.no_grad():
        try:
            outputs = space.build(space.config(row)).eval()(torch.zeros(1, *space.workload.input_shape))
        except (RuntimeError, TypeError) as error:
            raise TaskError(f"the networks of {space.name} cannot be run on noise: {error}") from error
    if not isinstance(outputs, torch.Tensor) or outputs.dim() != 2 or outputs.shape[1] < 2:
        raise TaskError("proxies look at classifiers of images", field="space", value=space.name)
    return int(outputs.shape[1])
