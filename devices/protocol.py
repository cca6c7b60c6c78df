"""The measurement protocol: how often, in what order, and when it is enough."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

from ..errors import ConfigError
from ..schema import Record


@dataclass(frozen=True)
class Protocol(Record):
    """How latencies are sampled. Rounds are fresh, pinned processes; each round times every model
    in its own shuffled order, between runs of a fixed reference model that shows the machine drift.

    Args:
        processes: Most processes (rounds) a model is timed in.
        min_processes: Fewest, before the interval may end sampling.
        warmup_runs: Iterations before timing, and at least a tenth of ``time_cap_s`` of them.
        min_runs, max_runs: Timed iterations in one process.
        time_cap_s: Seconds of timed iterations of one model in one process. Models too slow for
            ``min_runs`` in that time get up to ten times as long, then fewer runs.
        target_interval: Wanted width of the 90 % interval relative to the statistic; a model that
            is within it is not timed in further rounds.
        timeout_s: Limit for one model in one process, loading included; a hang costs this much.
        interleave: Time the reference model between models.
        pin: Pin the process to one core per thread.
        realtime: SCHED_FIFO where permitted.
    """

    SCHEMA: ClassVar[str] = "gnomon.protocol/1"

    processes: int = 8
    min_processes: int = 3
    warmup_runs: int = 10
    min_runs: int = 30
    max_runs: int = 1000
    time_cap_s: float = 0.15
    target_interval: float = 0.03
    timeout_s: float = 60.0
    interleave: bool = True
    pin: bool = True
    realtime: bool = True

    def __post_init__(self) -> None:
        for name in (
            "processes",
            "min_processes",
            "min_runs",
            "max_runs",
            "time_cap_s",
            "target_interval",
            "timeout_s",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError("must be positive", field=f"protocol.{name}", value=getattr(self, name))
        if self.warmup_runs < 0:
            raise ConfigError("must not be negative", field="protocol.warmup_runs", value=self.warmup_runs)
        if self.min_processes > self.processes:
            raise ConfigError(
                "more than protocol.processes",
                field="protocol.min_processes",
                value=self.min_processes,
                allowed=f"1 to {self.processes}",
            )

    @property
    def id(self) -> str:
        """Short stable identity: measurements are reused only under an equal protocol."""
        return sha256(self.to_json().encode()).hexdigest()[:16]
