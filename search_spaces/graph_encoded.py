"""Spaces whose features come from the networks themselves: nothing to write but ``build``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from .algebra import Genotypes
from .base import SearchSpace
from .operations import executed, features
from .operations_torch import module_operations

GRAPH_FEATURES = (
    "macs", "traffic", "parameters", "kernels", "path_kernels", "path_macs",
    "dense_convs", "dense_macs", "dense_cio", "pointwise_convs", "pointwise_macs", "pointwise_cio",
    "depthwise3_convs", "depthwise3_macs", "depthwise3_cio", "depthwise5_convs", "depthwise5_macs", "depthwise5_cio",
    "dense_macs8", "dense_macs16", "dense_macs32", "pointwise_macs8", "pointwise_macs16", "pointwise_macs32",
    "depthwise3_macs8", "depthwise3_macs16", "depthwise3_macs32",
    "depthwise5_macs8", "depthwise5_macs16", "depthwise5_macs32",
    "depthwise7_convs", "depthwise7_macs", "depthwise7_cio", "grouped_convs", "grouped_macs", "grouped_cio",
    "linear_layers", "linear_macs", "shortcuts", "shortcut_elements", "pools", "pool_elements",
    "squeezes", "squeeze_elements", "activations", "activation_elements", "norms", "norm_elements",
    "concats", "concat_elements", "others", "other_elements",
)  # fmt: skip
"""Columns of :meth:`GraphEncodedSpace.encode`; see :func:`~gnomon.search_spaces.operations.features`."""

COUNTED = ("dense_convs", "pointwise_convs", "linear_layers", "shortcuts", "pools", "kernels")
"""Kinds that are counted under each execution."""


class GraphEncodedSpace(SearchSpace):
    """A space that is encoded by tracing each network, as a runtime executes it.

    For a user's own space: predictors get the same features as from ours, at the price of building
    and tracing every new architecture once (some 50 ms). A vectorised ``encode`` under the same
    names replaces it where a search needs hundreds of thousands a second; the conformance suite
    compares the two.
    """

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Features of the executed graph ``(N, F)``, see :data:`GRAPH_FEATURES`."""
        rows = [[values.get(name, 0.0) for name in GRAPH_FEATURES] for _, values in self._graphs(genotypes)]
        return np.array(rows, dtype=np.float32).reshape(len(genotypes), len(GRAPH_FEATURES))

    @property
    def feature_names(self) -> tuple[str, ...]:
        return GRAPH_FEATURES

    @property
    def executions(self) -> Mapping[str, tuple[str, ...]]:
        """``as_built`` and ``live``: with and without operations that do not reach the output."""
        return {"as_built": COUNTED, "live": COUNTED}

    def execution_counts(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Counts ``(N, 2, K)`` of the graph as it was built and as it is executed."""
        counts = [[[values.get(name, 0.0) for name in COUNTED] for values in pair] for pair in self._graphs(genotypes)]
        return np.array(counts, dtype=np.float32).reshape(len(genotypes), 2, len(COUNTED))

    def _graphs(self, genotypes: Genotypes) -> list[tuple[dict[str, float], dict[str, float]]]:
        known: dict[str, tuple[dict[str, float], dict[str, float]]] = self.__dict__.setdefault("_traced_features", {})
        result = []
        for row, key in zip(genotypes, self.keys(genotypes), strict=True):
            if key not in known:
                graph = module_operations(self.build(self.config(row)), self.workload.input_shape)
                known[key] = features(graph), features(executed(graph))
            result.append(known[key])
        return result
