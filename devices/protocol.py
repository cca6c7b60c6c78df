"""The measurement protocol: how often, in what order, and when it is enough."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

from ..errors import ConfigError
from ..schema import SCHEMA_KEY, Record

_SINCE_2 = ("steady_share", "target_error")
"""Fields that version 1 had not."""


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
        steady_share: Warm-up goes on while the median of a window of runs is lower than that of the window
            before by more than this share, for ``time_cap_s`` at most; None to not look.
        target_error: In one process timing ends early, after ``min_runs`` and a quarter of ``time_cap_s``,
            when the relative standard error of the median is at most this; None to always fill the time.
        target_interval: Wanted width of the 90 % interval relative to the statistic; a model that
            is within it is not timed in further rounds.
        timeout_s: Limit for one model in one process, loading included; a hang costs this much.
        interleave: Time the reference model between models.
        pin: Pin the process to one core per thread.
        realtime: SCHED_FIFO where permitted.
    """

    SCHEMA: ClassVar[str] = "gnomon.protocol/2"
    OLDER: ClassVar[tuple[str, ...]] = ("gnomon.protocol/1",)

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
    steady_share: float | None = 0.02
    target_error: float | None = 0.002

    @classmethod
    def upgraded(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**data, **dict.fromkeys(_SINCE_2)}

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
        for name in _SINCE_2:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ConfigError(
                    "not a share", field=f"protocol.{name}", value=value, allowed="more than 0, less than 1, or null"
                )
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
        """Short stable identity: measurements are reused only under an equal protocol.

        A protocol without what version 2 added measures as version 1 did, and has its identity.
        """
        data = self.to_dict()
        if all(data[name] is None for name in _SINCE_2):
            data = {key: value for key, value in data.items() if key not in _SINCE_2}
            data[SCHEMA_KEY] = self.OLDER[0]
        return sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
