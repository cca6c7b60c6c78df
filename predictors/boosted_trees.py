"""Gradient-boosted regression trees, kept as arrays: files that outlive a version of scikit-learn.

Shapes: N rows, F columns, T trees, M nodes of the largest tree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from .regressors import Regressor

FloatArray = npt.NDArray[np.float64]

CHUNK = 512


@dataclass(frozen=True)
class BoostedTrees(Regressor):
    """A constant and the values of the leaves that a row falls into.

    Args:
        column: Which column a node compares ``(T, M)``.
        threshold: A row goes left if its value, as float32, is not above ``(T, M)``.
        children: Left and right ``(2, T, M)``; a leaf is its own child.
        value: What a leaf adds ``(T, M)``.
        bias: The constant.
        depth: Steps from root to leaf, at most.
    """

    kind: ClassVar[str] = "boosted_trees"
    column: npt.NDArray[np.int32]
    threshold: FloatArray
    children: npt.NDArray[np.int32]
    value: FloatArray
    bias: float
    depth: int

    def predict(self, features: FloatArray) -> FloatArray:
        """See :meth:`Regressor.predict`."""
        result = np.empty(len(features))
        # scikit-learn grows its trees on float32.
        values = features.astype(np.float32)
        n_trees, n_nodes = self.column.shape
        # Flat arrays and `take`: several times faster than indexing with three arrays.
        offset = np.arange(n_trees) * n_nodes
        column, threshold, leaves = self.column.astype(np.intp).ravel(), self.threshold.ravel(), self.value.ravel()
        children = (self.children.astype(np.intp) + offset[:, None]).transpose(1, 2, 0).ravel()
        for start in range(0, len(features), CHUNK):
            part = values[start : start + CHUNK]
            first = np.arange(len(part))[:, None] * part.shape[1]
            nodes = np.broadcast_to(offset, (len(part), n_trees))
            for _ in range(self.depth):
                right = part.take(first + column.take(nodes)) > threshold.take(nodes)
                nodes = children.take(2 * nodes + right)
            result[start : start + CHUNK] = leaves.take(nodes).sum(axis=1) + self.bias
        return result

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`Regressor.to_arrays`."""
        return {
            "column": self.column,
            "threshold": self.threshold,
            "children": self.children,
            "value": self.value,
            "bias": np.array(self.bias),
            "depth": np.array(self.depth),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`Regressor.from_arrays`."""
        return cls(
            np.asarray(arrays["column"], dtype=np.int32),
            np.asarray(arrays["threshold"], dtype=np.float64),
            np.asarray(arrays["children"], dtype=np.int32),
            np.asarray(arrays["value"], dtype=np.float64),
            float(arrays["bias"]),
            int(arrays["depth"]),
        )


def fit_boosted_trees(
    features: FloatArray,
    targets: FloatArray,
    *,
    trees: int,
    depth: int,
    learning_rate: float,
    seed: int = 0,
) -> BoostedTrees:
    """Least-squares boosting (Friedman 2001), fitted by scikit-learn.

    Args:
        features: ``(N, F)``.
        targets: ``(N,)``.
        trees: T.
        depth: Of each tree, at most.
        learning_rate: Share of each tree's correction that is kept.
        seed: Of the order in which columns are tried.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=trees, max_depth=depth, learning_rate=learning_rate, random_state=seed
    ).fit(features, targets)
    grown = [stage[0].tree_ for stage in model.estimators_]
    shape = (len(grown), max(tree.node_count for tree in grown))
    column, threshold = np.zeros(shape, dtype=np.int32), np.zeros(shape)
    children, value = np.zeros((2, *shape), dtype=np.int32), np.zeros(shape)
    for index, tree in enumerate(grown):
        n = tree.node_count
        leaf = tree.children_left < 0
        own = np.arange(n)
        column[index, :n] = np.where(leaf, 0, tree.feature)
        threshold[index, :n] = np.where(leaf, 0.0, tree.threshold)
        children[0, index, :n] = np.where(leaf, own, tree.children_left)
        children[1, index, :n] = np.where(leaf, own, tree.children_right)
        value[index, :n] = learning_rate * tree.value[:, 0, 0]
    bias = float(np.ravel(model.init_.constant_)[0])
    return BoostedTrees(column, threshold, children, value, bias, max(tree.max_depth for tree in grown))
