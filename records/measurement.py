"""A measurement and everything that must be known to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar, Literal, TypeAlias

from ..errors import MeasurementError
from ..schema import Record
from ..search_spaces import Workload

Statistic: TypeAlias = Literal["minimum", "p10", "median", "p90"]
Verdict: TypeAlias = Literal["good", "noisy", "throttled", "failed"]
STATISTICS: tuple[Statistic, ...] = ("minimum", "p10", "median", "p90")


@dataclass(frozen=True)
class Setting(Record):
    """What HELP calls a device: device (hardware x runtime x threads) x workload x precision.

    ``options`` holds runner options that change latency, such as the graph optimisation level.
    """

    SCHEMA: ClassVar[str] = "gnomon.setting/1"

    device: str
    hardware: str
    runtime: str
    workload: Workload
    threads: int = 1
    precision: str = "fp32"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Short stable identity; two settings with equal ids are measured alike."""
        return sha256(self.to_json().encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Fingerprint(Record):
    """The machine's state when something was measured."""

    SCHEMA: ClassVar[str] = "gnomon.fingerprint/1"

    cpu: str
    cores: int
    memory_bytes: int
    os: str
    python: str
    runtime: str
    threads: int
    precision: str
    governor: str | None = None
    load_1min: float | None = None
    accelerator: str | None = None
    pinned: bool = False
    realtime: bool = False
    virtual: bool | None = None


@dataclass(frozen=True)
class Measurement(Record):
    """Latency of one deployable in one setting. All latencies in ms, of the whole plan.

    Args:
        architecture: Key or file name of what was measured.
        setting: Identity and text of the setting.
        protocol: Identity of the protocol (``Protocol.id``).
        minimum, p10, median, p90: Of the iterations of one process; over processes the smallest
            counts (the least disturbed process: see ``gnomon.devices.sampling``).
        interval: 90 % bootstrap interval of the study's statistic, resampled over processes.
        process_values: The study's statistic in each process, in order.
        parts: Latency of each graph of the plan by name, same statistic.
        verdict: ``good``: interval within its target. ``noisy``: not within it when the budget
            ended. ``throttled``: nor that, and the reference model drifted by more than 10 %, and not
            because the process had to wait for a core. ``failed``: see ``error``.
        facts: What a runner found out by name, such as ``provider_share`` (of ONNX Runtime's nodes, how many
            ran on the provider asked for).
        drift: Largest relative deviation of the interleaved reference model between processes.
        contention: Share of the time of timed runs in which the process was ready but did not run, or a
            hypervisor ran something else; mean over processes. None where the system does not tell.
        steady: Whether latencies had stopped falling before timing began, in every process; None if
            that was not looked at.
        energy_mj: Energy in mJ of one run of the plan above idle; None without a meter.
    """

    SCHEMA: ClassVar[str] = "gnomon.measurement/2"
    OLDER: ClassVar[tuple[str, ...]] = ("gnomon.measurement/1",)

    architecture: str
    setting: Setting
    protocol: str
    statistic: Statistic
    verdict: Verdict
    fingerprint: Fingerprint
    timestamp: str
    minimum: float | None = None
    p10: float | None = None
    median: float | None = None
    p90: float | None = None
    interval: tuple[float, float] | None = None
    process_values: tuple[float, ...] = ()
    n_runs: int = 0
    n_warmup: int = 0
    parts: Mapping[str, float] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    energy_mj: float | None = None
    drift: float | None = None
    contention: float | None = None
    steady: bool | None = None
    facts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    @property
    def latency_ms(self) -> float:
        """The study's statistic.

        Raises:
            MeasurementError: If the measurement failed.
        """
        value = getattr(self, self.statistic)
        if self.verdict == "failed" or value is None:
            raise MeasurementError(f"{self.architecture} has no latency on {self.setting.device}: {self.error}")
        return float(value)
