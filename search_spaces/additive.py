"""Features that are sums of table entries: how a linear model serves a million candidates a second.

Where the cost of a part of a network depends on few decisions only (a block's own genes and the
width of the block before it), every additive feature of the network is a sum of look-ups, one
per part. A linear model on such features folds its weights into the tables and needs one number
per look-up instead of F.

Shapes: N architectures, D decisions, G groups of decisions, K_g combinations of choices in group g,
F features.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import SpaceError
from .algebra import Genotypes

CHUNK = 4096
"""Rows handled at once: genes, codes and features of a chunk stay in the processor's cache."""


@dataclass(frozen=True, repr=False)
class AdditiveEncoding:
    """``encode(X) == bias + sum_g tables[g][codes(X)[:, g]]`` for canonical rows ``X``.

    Args:
        groups: Columns of the genotype that group g reads. Groups may share columns.
        radices: Number of choices of each of those columns, in the same order. The first column
            is the most significant digit of the group's mixed-radix code.
        tables: One float32 array ``(K_g, F)`` per group, ``K_g`` the product of its radices.
        bias: What every architecture has ``(F,)``, for example the stem.
    """

    groups: tuple[tuple[int, ...], ...]
    radices: tuple[tuple[int, ...], ...]
    tables: tuple[npt.NDArray[np.float32], ...]
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        if not len(self.groups) == len(self.radices) == len(self.tables):
            raise SpaceError("groups, radices and tables differ in number", field="tables", value=len(self.tables))
        for group, radices, table in zip(self.groups, self.radices, self.tables, strict=True):
            expected = (int(np.prod(radices, dtype=np.int64)), len(self.bias))
            if len(group) != len(radices) or table.shape != expected:
                raise SpaceError(
                    f"table of group {group} has a wrong shape",
                    field="tables",
                    value=table.shape,
                    allowed=str(expected),
                )

    @cached_property
    def _places(self) -> npt.NDArray[np.float32]:
        """Place values ``(G, D')`` that turn genes into codes; D' is the last column in use, plus one."""
        columns = 1 + max((max(group, default=0) for group in self.groups), default=0)
        places = np.zeros((len(self.groups), columns), dtype=np.float32)
        for g, (group, radices) in enumerate(zip(self.groups, self.radices, strict=True)):
            place = 1
            for column, radix in zip(reversed(group), reversed(radices), strict=True):
                places[g, column] += place
                place *= radix
        return places

    def iter_codes(self, genotypes: Genotypes) -> Iterator[tuple[slice, npt.NDArray[np.intp]]]:
        """``(rows, codes (G, n))`` chunk by chunk, in the layout and type in which look-ups are fastest."""
        places = self._places
        for start in range(0, len(genotypes), CHUNK):
            rows = slice(start, min(start + CHUNK, len(genotypes)))
            # A float32 matrix product is exact below 2^24 and faster than integer arithmetic by column.
            genes = genotypes[rows, : places.shape[1]].astype(np.float32)
            yield rows, (places @ genes.T).astype(np.intp)

    def codes(self, genotypes: Genotypes) -> npt.NDArray[np.int32]:
        """Mixed-radix code of each group ``(N, G)``."""
        result = np.empty((len(genotypes), len(self.groups)), dtype=np.int32)
        for rows, codes in self.iter_codes(genotypes):
            result[rows] = codes.T
        return result

    def encode(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Features ``(N, F)``."""
        result = np.empty((len(genotypes), len(self.bias)), dtype=np.float32)
        gathered = np.empty((min(CHUNK, len(genotypes)), len(self.bias)), dtype=np.float32)
        for rows, codes in self.iter_codes(genotypes):
            total, part = result[rows], gathered[: codes.shape[1]]
            total[:] = self.bias
            for table, code in zip(self.tables, codes, strict=True):
                total += table.take(code, axis=0, out=part, mode="clip")
        return result

    def fold(self, weights: npt.NDArray[Any]) -> FoldedTables:
        """Tables of ``encode(X) @ weights``.

        Args:
            weights: ``(F,)`` for one linear model, or ``(F, K)`` for K of them at once.

        Raises:
            SpaceError: If the number of weights is not F.
        """
        weights = np.asarray(weights, dtype=np.float64)
        if weights.ndim not in (1, 2) or len(weights) != len(self.bias):
            raise SpaceError(
                "weights do not fit the features", field="weights", value=weights.shape, allowed=f"({len(self.bias)},)"
            )
        tables = tuple(table.astype(np.float64) @ weights for table in self.tables)
        return FoldedTables(self, tables, self.bias.astype(np.float64) @ weights)


@dataclass(frozen=True, repr=False)
class FoldedTables:
    """A linear model as look-up tables: :meth:`sum` equals ``encoding.encode(X) @ weights``.

    Args:
        encoding: Where the codes come from.
        tables: One array ``(K_g,)`` or ``(K_g, K)`` per group.
        bias: What every architecture has: a scalar array or ``(K,)``.
    """

    encoding: AdditiveEncoding
    tables: tuple[npt.NDArray[np.float64], ...]
    bias: npt.NDArray[np.float64] | np.float64

    def sum(self, genotypes: Genotypes) -> npt.NDArray[np.float64]:
        """The model's value ``(N,)``, or ``(N, K)`` where K models were folded."""
        result = np.empty((len(genotypes), *np.shape(self.bias)), dtype=np.float64)
        gathered = np.empty((min(CHUNK, len(genotypes)), *np.shape(self.bias)), dtype=np.float64)
        for rows, codes in self.encoding.iter_codes(genotypes):
            total, part = result[rows], gathered[: codes.shape[1]]
            total[:] = self.bias
            for table, code in zip(self.tables, codes, strict=True):
                total += table.take(code, axis=0, out=part, mode="clip")
        return result
