"""A device of this or another machine while it is busy: a search then asks for latencies under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import ConfigError, DeviceError
from ..records import Fingerprint, Measurement, Setting, Workload
from ..search_spaces import Deployable
from .answers import Array
from .isolation import RoundResult
from .jobs import ModelJob, RoundJob
from .load import Load
from .local import LocalDevice, Progress
from .protocol import Protocol


class LoadedDevice(LocalDevice):
    """Any local or remote device beside generated load: other processes compute, or copy memory, meanwhile.

    The model is scheduled as an application would be: without pinning and without ``SCHED_FIFO``, which
    would keep the load away from it. The load is part of the setting's identity. A median hides that single
    runs are interrupted; ``statistic: p90`` of the inner device shows it.

    Args:
        inner: The device that is loaded.
        cpu: Processes that compute, on the machine that measures.
        memory: Processes that copy memory there.
        on_progress: See :class:`~gnomon.devices.local.LocalDevice`.

    Raises:
        ConfigError: If an argument is out of range.
    """

    name: ClassVar[str] = "loaded"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "onnx"
    runner: ClassVar[str] = ""

    def __init__(
        self, inner: LocalDevice, cpu: int = 1, memory: int = 0, on_progress: Callable[[Progress], None] | None = None
    ) -> None:
        if not isinstance(inner, LocalDevice) or isinstance(inner, LoadedDevice):
            raise ConfigError("not a device that can be loaded", field="device.inner", value=inner)
        super().__init__(inner.threads, inner.statistic, on_progress=on_progress)
        self.inner = inner
        self.load = Load(cpu, memory)
        self.precision = inner.precision
        # What the class says is for the catalog.
        self.accepts = inner.accepts  # type: ignore[misc]
        self.runner = inner.runner  # type: ignore[misc]

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        reason = self.inner.unavailable()
        if reason is not None:
            raise DeviceError(reason, field="device.inner", value=self.inner.name)
        return super().measure(deployables, protocol, seed=seed)

    def run_round(self, job: RoundJob, on_model: Callable[[int], None] | None) -> RoundResult:
        protocol = replace(job.protocol, pin=False, realtime=False)
        return self.inner.run_round(replace(job, protocol=protocol, load=self.load), on_model)

    def setting(self, workload: Workload) -> Setting:
        setting = self.inner.setting(workload)
        load = {"cpu": self.load.cpu, "memory": self.load.memory}
        return replace(setting, options={**setting.options, "load": load})

    def arguments(self) -> dict[str, Any]:
        raise ConfigError(
            "a host cannot be a loaded device",
            field="device.inner",
            value=self.name,
            hint="The other way round: device=loaded device/inner=remote device.inner.host=...",
        )

    # ---- As the inner device ---------------------------------------------------------------

    def hardware(self) -> str:
        return self.inner.hardware()

    def cores(self) -> int:
        return self.inner.cores()

    def options(self) -> Mapping[str, Any]:
        return self.inner.options()

    def fingerprint(self) -> Fingerprint:
        return self.inner.fingerprint()

    def reference(self, folder: Path) -> ModelJob:
        return self.inner.reference(folder)

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        return self.inner.prepare(deployable, folder)

    def check(self, deployable: Deployable) -> None:
        self.inner.check(deployable)

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        return self.inner.deployed(deployable, folder)

    def answers(self, deployable: Deployable, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self.inner.answers(deployable, inputs)
