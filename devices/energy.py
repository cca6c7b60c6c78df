"""Energy of one inference, from the meters that a machine has; None where it has none, never a guess.

**Never run on a real meter by its authors**, whose machines have none: written from the documentation of
Linux's power capping interface (``Documentation/power/powercap/powercap.rst``) and of NVML
(``nvmlDeviceGetTotalEnergyConsumption``), and tested with stand-ins for both.

A meter counts all that its package or board does. So the power of the machine at rest is measured before the
model is loaded, and taken off; and other load on the machine is charged to the model. Over the processes of a
measurement the smallest value counts, as it does for latencies.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

POWERCAP = Path("/sys/class/powercap")
_COUNTED = ("package-", "dram")
"""RAPL domains that add up: ``core`` and ``uncore`` are parts of a package, ``psys`` holds packages."""


class Meter(ABC):
    """Counts energy. Read it from one thread."""

    block_s: ClassVar[float]
    """A block of runs must last this long for the counter's steps not to matter."""

    @abstractmethod
    def read_mj(self) -> float:
        """Energy in mJ since some moment before; never falls."""


class RaplMeter(Meter):
    """The processor's packages and its memory, as Intel's (and AMD's) RAPL counts them, read through Linux.

    The counters step about every millisecond.

    Args:
        domains: Folders with ``energy_uj`` and ``max_energy_range_uj``, at which the counter begins anew.

    Raises:
        OSError, ValueError: If a counter cannot be read: since 2020 only root may.
    """

    block_s: ClassVar[float] = 0.2

    def __init__(self, domains: list[Path]) -> None:
        self._domains = domains
        self._ranges = [int((domain / "max_energy_range_uj").read_text()) for domain in domains]
        self._last = [self._counter(domain) for domain in domains]
        self._total_uj = 0

    def read_mj(self) -> float:
        for index, domain in enumerate(self._domains):
            now = self._counter(domain)
            step = now - self._last[index]
            self._total_uj += step if step >= 0 else step + self._ranges[index]
            self._last[index] = now
        return self._total_uj * 1e-3

    @staticmethod
    def _counter(domain: Path) -> int:
        return int((domain / "energy_uj").read_text())


class NvmlMeter(Meter):
    """The whole board of one NVIDIA GPU of the Volta generation or later, as its driver counts it.

    Args:
        uuid: Of the GPU (``GPU-...``): NVML and CUDA may count GPUs differently. None for the machine's only one.
        nvml: The module ``pynvml`` of the package ``nvidia-ml-py``.

    Raises:
        pynvml.NVMLError: If there is no such GPU, or it does not count energy.
        ValueError: If there are several and none is named.
    """

    block_s: ClassVar[float] = 1.0  # the counter steps about every 0.1 s

    def __init__(self, uuid: str | None, nvml: Any) -> None:
        self._nvml = nvml
        nvml.nvmlInit()
        if uuid is not None:
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid)
        elif (count := nvml.nvmlDeviceGetCount()) == 1:
            self._handle = nvml.nvmlDeviceGetHandleByIndex(0)
        else:
            raise ValueError(f"{count} GPUs, and none is named")
        self.read_mj()

    def read_mj(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))


def cpu_meter(root: Path = POWERCAP) -> RaplMeter | None:
    """The meter of this machine's processors; None if there is none that this process may read."""
    with contextlib.suppress(OSError, ValueError):
        # Packages are intel-rapl:0, their parts intel-rapl:0:1. The same packages under intel-rapl-mmio: not twice.
        zones = sorted(path for path in root.iterdir() if path.name.startswith("intel-rapl:"))
        domains = [zone for zone in zones if (zone / "name").read_text().strip().startswith(_COUNTED)]
        if domains:
            return RaplMeter(domains)
    return None


def gpu_meter(uuid: str | None = None) -> NvmlMeter | None:
    """The meter of one NVIDIA GPU; None without ``nvidia-ml-py``, driver, counter, or knowing which of several.

    Args:
        uuid: As :class:`NvmlMeter` takes it.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        return NvmlMeter(uuid, pynvml)
    except (pynvml.NVMLError, ValueError):
        return None


def idle_power_w(meter: Meter) -> float:
    """Power in W while this process does nothing for the meter's block of time."""
    start, before = time.perf_counter(), meter.read_mj()
    time.sleep(meter.block_s)
    return (meter.read_mj() - before) * 1e-3 / (time.perf_counter() - start)


def energy_per_run_mj(run: Callable[[], object], meter: Meter, idle_w: float) -> float | None:
    """Energy in mJ of one ``run`` above idle: (energy of a block - idle power x its time) / its runs.

    Args:
        run: Runs the model once and waits for it.
        meter: Read before and after a block of at least its ``block_s``.
        idle_w: Of :func:`idle_power_w`.

    Returns:
        None if the block took no more than the machine at rest: the meter does not see this model.
    """
    runs = 0
    start, before = time.perf_counter(), meter.read_mj()
    while time.perf_counter() - start < meter.block_s:
        run()
        runs += 1
    energy_mj, seconds = meter.read_mj() - before, time.perf_counter() - start
    above = energy_mj - idle_w * seconds * 1e3
    return above / runs if above > 0 else None
