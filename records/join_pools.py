"""Several pools of one space as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..search_spaces import Genotypes
from .pool import DevicePool


def join_pools(pools: Sequence[DevicePool]) -> DevicePool:
    """All settings of several pools side by side.

    Rows are those of the first pool in its order, then what the others hold besides, in theirs;
    NaN where a setting did not measure a row.

    Raises:
        DataError: If there are none, they are of different spaces, a setting occurs twice, or one
            is feature-only (its rows cannot be told apart).
    """
    if not pools:
        raise DataError("no pools to join", field="pools", value=[])
    if len(pools) == 1:
        return pools[0]
    space = pools[0].space
    if space is None or any(pool.space is None or pool.space.spec() != space.spec() for pool in pools):
        specs = [None if pool.space is None else pool.space.spec() for pool in pools]
        raise DataError("only pools of one space can be joined", field="space", value=specs)
    index: dict[str, int] = {}
    genotypes: list[Genotypes] = []
    places = []
    for pool in pools:
        rows = _rows(pool)
        keys = space.keys(rows)
        fresh = np.array([key not in index for key in keys], dtype=bool)
        genotypes.append(rows[fresh])
        for key in keys:
            index.setdefault(key, len(index))
        places.append(np.array([index[key] for key in keys], dtype=np.int64))
    settings = tuple(name for pool in pools for name in pool.settings)
    latencies = np.full((len(index), len(settings)), np.nan)
    column = 0
    for pool, place in zip(pools, places, strict=True):
        latencies[place, column : column + len(pool.settings)] = pool.latencies_ms
        column += len(pool.settings)
    return DevicePool(
        settings,
        latencies,
        "; ".join(dict.fromkeys(pool.source for pool in pools)),
        space,
        np.concatenate(genotypes),
        notes={name: note for pool in pools for name, note in pool.notes.items()},
    )


def _rows(pool: DevicePool) -> Genotypes:
    if pool.genotypes is None:
        raise DataError("a feature-only pool cannot be joined", field="pools", value=pool.source)
    return pool.genotypes
