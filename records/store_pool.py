"""What was measured on one's own devices, as a pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import DataError, SpaceError
from ..search_spaces import GENE_DTYPE, Genotypes, SearchSpace
from .measurement import STATISTICS, Measurement, Setting, Statistic
from .pool import DevicePool
from .store import MeasurementStore

ID_LENGTH = 8


def pool_from_store(
    store: MeasurementStore,
    space: SearchSpace,
    statistic: Statistic = "minimum",
    names: Mapping[str, str] | None = None,
) -> DevicePool:
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
        names: Names of columns by the identity of their setting; other settings are left out.

    Raises:
        DataError: If the store holds no such measurement, or the statistic is unknown.
    """
    if statistic not in STATISTICS:
        raise DataError("no such statistic", field="statistic", value=statistic, allowed=STATISTICS)
    genotypes, columns = _best(store, space, statistic, names)
    if not columns:
        raise DataError(
            f"{store.path} holds no measurement of this space", field="space", value=space.spec(), hint="Measure first."
        )
    settings = [next(iter(column.values())).setting for column in columns.values()]
    titles = _names(settings) if names is None else tuple(names[identity] for identity in columns)
    latencies = np.full((len(genotypes), len(columns)), np.nan)
    for index, column in enumerate(columns.values()):
        for row, measurement in column.items():
            latencies[row, index] = getattr(measurement, statistic)
    provenance = {
        title: _provenance(list(column.values())) for title, column in zip(titles, columns.values(), strict=True)
    }
    source = f"measured by gnomon, {statistic}"
    return DevicePool(titles, latencies, source, space, np.stack(genotypes), provenance=provenance)


def _best(
    store: MeasurementStore, space: SearchSpace, statistic: Statistic, names: Mapping[str, str] | None
) -> tuple[list[Genotypes], dict[str, dict[int, Measurement]]]:
    """Architectures in the order in which they were first measured, and by a setting's identity the measurement
    that counts of each, by its place in that order."""
    rows: dict[str, int] = {}
    genotypes: list[Genotypes] = []
    columns: dict[str, dict[int, Measurement]] = {}
    ids: dict[str, tuple[Genotypes, str] | None] = {}
    for deployable_id, measurement in store.entries():
        key, setting = measurement.architecture, measurement.setting.id
        if measurement.verdict == "failed" or getattr(measurement, statistic) is None:
            continue
        if names is not None and setting not in names:
            continue
        if key not in ids:
            ids[key] = _identity(space, key)
        found = ids[key]
        if found is None or found[1] != deployable_id:
            continue
        if key not in rows:
            rows[key] = len(rows)
            genotypes.append(found[0])
        column = columns.setdefault(setting, {})
        known = column.get(rows[key])
        if known is None or _rank(measurement) >= _rank(known):
            column[rows[key]] = measurement
    return genotypes, columns


def _provenance(measurements: list[Measurement]) -> dict[str, Any]:
    """Setting, machine, protocol and quality of one column's measurements, as JSON."""
    ordered = sorted(measurements, key=lambda m: m.timestamp)
    last = ordered[-1]
    return {
        "setting": last.setting.to_dict(),
        "fingerprint": last.fingerprint.to_dict(),
        "statistic": last.statistic,
        "protocols": sorted({m.protocol for m in ordered}),
        "verdicts": dict(Counter(m.verdict for m in ordered)),
        "first": ordered[0].timestamp,
        "last": last.timestamp,
    }


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
