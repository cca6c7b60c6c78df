"""Measuring through the store: what was measured before under the same conditions is reused."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..devices import Device, Protocol
from ..records import Measurement
from ..records.store import MeasurementStore
from ..search_spaces import Deployable

CHUNK = 4
"""Deployables measured together: enough to share rounds, few enough to lose little to a kill."""


def measure_all(
    device: Device,
    protocol: Protocol,
    store: MeasurementStore,
    deployables: Sequence[Deployable],
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    chunk: int = CHUNK,
) -> list[Measurement]:
    """One measurement per deployable, in order; new ones are stored chunk by chunk.

    Args:
        progress: Called with (done, total).
        chunk: Deployables that are measured together.
    """
    results: dict[int, Measurement] = {}
    for index, deployable in enumerate(deployables):
        setting = device.setting(deployable.workload)
        known = store.get(setting.id, deployable.id, protocol.id, device.statistic)
        if known is not None:
            results[index] = known
    missing = [i for i in range(len(deployables)) if i not in results]
    if progress is not None:
        progress(len(results), len(deployables))
    for start in range(0, len(missing), chunk):
        part = missing[start : start + chunk]
        measured = device.measure([deployables[i] for i in part], protocol, seed=seed + start)
        for index, measurement in zip(part, measured, strict=True):
            store.put(deployables[index].id, measurement)
            results[index] = measurement
        if progress is not None:
            progress(len(results), len(deployables))
    return [results[i] for i in range(len(deployables))]
