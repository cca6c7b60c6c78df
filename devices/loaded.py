"""A device of this or another machine while it is busy: a search then asks for latencies under load."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import ConfigError
from ..records import Fingerprint, Measurement, Setting, Workload
from ..search_spaces import Deployable
from .answers import Array
from .base import Device
from .load import Load
from .local import LocalDevice
from .protocol import Protocol


class LoadedDevice(Device):
    """Any local or remote device beside generated load: other processes compute, or copy memory, meanwhile.

    The model is scheduled as an application would be: without pinning and without ``SCHED_FIFO``, which
    would keep the load away from it. The load is part of the setting's identity. A median hides that single
    runs are interrupted; ``statistic: p90`` of the inner device shows it.

    Args:
        inner: The device that is loaded.
        cpu: Processes that compute, on the machine that measures.
        memory: Processes that copy memory there.

    Raises:
        ConfigError: If an argument is out of range.
    """

    name: ClassVar[str] = "loaded"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "onnx"

    def __init__(self, inner: LocalDevice, cpu: int = 1, memory: int = 0) -> None:
        if not isinstance(inner, LocalDevice):
            raise ConfigError("not a device that can be loaded", field="device.inner", value=inner)
        self.inner = inner
        self.load = Load(cpu, memory)
        self.statistic = inner.statistic
        self.precision = inner.precision
        # What a loaded device takes is what its inner one takes; the class's value is for the catalog.
        self.accepts = inner.accepts  # type: ignore[misc]

    @classmethod
    def unavailable(cls) -> str | None:
        """Of the inner device it is known when it measures."""
        return None

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        loaded = copy(self.inner)
        loaded.load = self.load
        measured = loaded.measure(deployables, protocol, seed=seed)
        return (replace(m, setting=self._under_load(m.setting)) for m in measured)

    def setting(self, workload: Workload) -> Setting:
        return self._under_load(self.inner.setting(workload))

    def _under_load(self, setting: Setting) -> Setting:
        load = {"cpu": self.load.cpu, "memory": self.load.memory}
        return replace(setting, options={**setting.options, "load": load})

    # ---- As the inner device ---------------------------------------------------------------

    def fingerprint(self) -> Fingerprint:
        return self.inner.fingerprint()

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        return self.inner.deployed(deployable, folder)

    def answers(self, deployable: Deployable, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.inner.answers(deployable, inputs)

    @property
    def calibration(self) -> Any:
        """Of the inner device, see :class:`~gnomon.devices.onnx_device.OnnxDevice`."""
        return getattr(self.inner, "calibration", None)

    @calibration.setter
    def calibration(self, samples: Any) -> None:
        if hasattr(self.inner, "calibration"):
            self.inner.calibration = samples
