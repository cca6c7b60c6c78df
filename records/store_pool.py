"""What was measured on one's own devices, as a pool."""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..errors import DataError, SpaceError
from ..search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from .measurement import STATISTICS, Measurement, Setting, Statistic
from .pool import DevicePool
from .store import MeasurementStore

ID_LENGTH = 8


def pool_from_store(store: MeasurementStore, space: SearchSpace, statistic: Statistic = "minimum") -> DevicePool:
    """Every setting that measured architectures of ``space``, as columns.

    Settings are named by their device, followed by the first characters of their identity where
    several share a device (other hardware, threads, batch or precision).
    Where an architecture was measured several times in a setting, good measurements go before noisy
    or throttled ones, then the newest counts; failed ones never do. What was measured as somebody's
    ONNX file, trained models included, is not counted: a file does not say which architecture it is.

    Args:
        store: Of measurements.
        space: Whose architectures to take; size of image and number of classes included.
        statistic: Which of a measurement's statistics to take.

    Raises:
        DataError: If the store holds no such measurement, or the statistic is unknown.
    """
    if statistic not in STATISTICS:
        raise DataError("no such statistic", field="statistic", value=statistic, allowed=STATISTICS)
    rows: dict[str, int] = {}
    genotypes: list[Genotypes] = []
    settings: dict[str, Setting] = {}
    best: dict[tuple[int, str], Measurement] = {}
    ids: dict[str, tuple[Genotypes, str] | None] = {}
    for deployable_id, measurement in store.entries():
        if measurement.verdict == "failed" or getattr(measurement, statistic) is None:
            continue
        key = measurement.architecture
        if key not in ids:
            ids[key] = _identity(space, key)
        found = ids[key]
        if found is None or found[1] != deployable_id:
            continue
        if key not in rows:
            rows[key] = len(rows)
            genotypes.append(found[0])
        setting = measurement.setting
        settings.setdefault(setting.id, setting)
        cell = (rows[key], setting.id)
        if cell not in best or _rank(measurement) >= _rank(best[cell]):
            best[cell] = measurement
    if not rows:
        raise DataError(
            f"{store.path} holds no measurement of this space", field="space", value=space.spec(), hint="Measure first."
        )
    columns = {identity: column for column, identity in enumerate(settings)}
    latencies = np.full((len(rows), len(columns)), np.nan)
    for (row, identity), measurement in best.items():
        latencies[row, columns[identity]] = getattr(measurement, statistic)
    source = f"measurement store {store.path}, {statistic}"
    return DevicePool(_names(list(settings.values())), latencies, source, space, np.stack(genotypes))


def _identity(space: SearchSpace, key: str) -> tuple[Genotypes, str] | None:
    """Row and deployable of an architecture's key; None if it is no key of this space."""
    try:
        row = space.algebra.from_key(key)
        canonical: Genotypes = space.canonical(row[None])[0]
        if not np.array_equal(canonical, row):
            return None
        return row.astype(GENE_DTYPE), space.deployable(space.config(row)).id
    except SpaceError:
        return None


def _rank(measurement: Measurement) -> tuple[bool, str]:
    return measurement.verdict == "good", measurement.timestamp


def _names(settings: list[Setting]) -> tuple[str, ...]:
    count = Counter(setting.device for setting in settings)
    return tuple(
        setting.device if count[setting.device] == 1 else f"{setting.device}_{setting.id[:ID_LENGTH]}"
        for setting in settings
    )
