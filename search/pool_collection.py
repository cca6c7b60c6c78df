"""Collecting a pool: many architectures of one space in many settings, resumable at any point.

Everything goes through the measurement store, so that what was measured is never measured again. Work is
done in rounds over the settings, a few architectures each, so that a pool is useful long before it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..devices import Device, Protocol
from ..errors import ConfigError
from ..records import DevicePool
from ..records.pools import pool_from_store
from ..records.store import MeasurementStore
from ..search_spaces import Deployable, Genotypes, SearchSpace
from .measuring import measure_all

ROUND = 10
"""Architectures of one setting that are measured together: they share processes, reference and drift."""

BLOCK = 512
"""Architectures that are sampled at a time."""


@dataclass(frozen=True)
class PoolSetting:
    """One column of the pool.

    Args:
        name: Of the column.
        device: That measures.
        batch: Images at once.
        architectures: At most so many, the first ones: for runtimes with slow converters.
    """

    name: str
    device: Device
    batch: int = 1
    architectures: int | None = None


@dataclass(frozen=True)
class Collected:
    """Progress: a setting's round is done."""

    setting: str
    done: int
    total: int
    failed: int


def distinct_architectures(space: SearchSpace, n: int, seed: int) -> Genotypes:
    """``n`` random architectures ``(n, D)`` that differ in what runs, the space's named ones first; the first
    of more are the same ones.

    Two that are equal under the last of the space's executions (the one that simplifies most), or where it has
    none in their encoding and costs, count as one.

    Raises:
        ConfigError: If the space seems to have fewer.
    """
    named = [space.genotype(config) for config in space.named.values()]
    blocks = [np.stack(named)] if named else []
    found = 0
    while True:
        blocks.append(space.sample(BLOCK, np.random.default_rng((seed, len(blocks)))))
        rows = np.concatenate(blocks)
        first = np.sort(np.unique(_traits(space, rows), axis=0, return_index=True)[1])
        if len(first) >= n:
            return rows[first[:n]]
        if len(first) == found:
            raise ConfigError(
                "random samples of this space hold fewer that differ", field="n", value=n, allowed=f"1 to {found}"
            )
        found = len(first)


def _traits(space: SearchSpace, rows: Genotypes) -> npt.NDArray[np.float64]:
    """What two architectures must differ in to count as two ``(N, T)``."""
    counts = space.execution_counts(rows)
    if counts.shape[1]:
        return np.asarray(counts[:, -1], dtype=np.float64)
    costs = space.costs(rows).columns()
    return np.concatenate([space.encode(rows), np.stack([costs["macs"], costs["cio"]], axis=1)], axis=1)


def collect(
    space: SearchSpace,
    settings: Sequence[PoolSetting],
    genotypes: Genotypes,
    protocol: Protocol,
    store: MeasurementStore,
    *,
    seed: int = 0,
) -> Iterator[Collected]:
    """Measures architectures ``(N, D)`` in every setting; yields after each setting's round.

    A setting whose device cannot run any more (:class:`DeviceError`) raises; a model that fails costs its
    measurement only and is not tried again in this call.
    """
    for start in range(0, len(genotypes), ROUND):
        for setting in settings:
            total = min(len(genotypes), setting.architectures or len(genotypes))
            stop = min(start + ROUND, total)
            if start >= stop:
                continue
            deployables = pool_deployables(space, genotypes[start:stop], setting.batch)
            results = measure_all(setting.device, protocol, store, deployables, seed=seed + start, chunk=ROUND)
            yield Collected(setting.name, stop, total, sum(m.verdict == "failed" for m in results))


def pool_deployables(space: SearchSpace, genotypes: Genotypes, batch: int) -> list[Deployable]:
    """What is measured of architectures ``(N, D)``."""
    workload = replace(space.workload, batch=batch)
    return [space.deployable(space.config(row), workload) for row in genotypes]


def collected_pool(space: SearchSpace, settings: Sequence[PoolSetting], store: MeasurementStore) -> DevicePool:
    """What the store holds of these settings, as a pool under their names.

    Raises:
        DataError: If nothing has been measured yet.
    """
    names = {s.device.setting(replace(space.workload, batch=s.batch)).id: s.name for s in settings}
    if len(names) < len(settings):
        raise ConfigError(
            "two settings are one and the same", field="settings", value=[s.name for s in settings], allowed="distinct"
        )
    statistics = {s.device.statistic for s in settings}
    if len(statistics) > 1:
        raise ConfigError("settings differ in their statistic", field="settings", value=sorted(statistics))
    pool = pool_from_store(store, space, statistics.pop(), names=names)
    order = [s.name for s in settings if s.name in pool.settings]
    return pool.select(order).measured()
