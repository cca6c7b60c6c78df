"""Named questions about a deployable, each answered by one figure of a measurement.

The names are those of MLPerf Inference (Reddi et al., "MLPerf Inference Benchmark", ISCA 2020) where it
has one. A scenario adds no timing of its own: it says what to run (the batch is part of the workload, so
of the setting's identity) and which figure of the measurement is meant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..errors import ConfigError
from ..records import Measurement
from ..search_spaces import Deployable


@dataclass(frozen=True)
class Figure:
    """One answer.

    Args:
        value: In ``unit``.
        unit: Such as ``ms`` or ``examples/s``.
        interval: 90 % interval in ``unit``; None where the measurement has none for it.
        what: In words.
    """

    value: float
    unit: str
    interval: tuple[float, float] | None
    what: str


class Scenario(ABC):
    """A question about a deployable."""

    name: ClassVar[str]

    def check(self, deployable: Deployable) -> None:
        """Raises ConfigError if the question makes no sense of ``deployable``."""
        return

    @abstractmethod
    def figure(self, measurement: Measurement, deployable: Deployable) -> Figure:
        """The answer that ``measurement`` of ``deployable`` gives.

        Raises:
            MeasurementError: If it failed.
        """


class SingleStream(Scenario):
    """One request after the other, each of one example: the latency that a user waits for."""

    name = "single_stream"

    def check(self, deployable: Deployable) -> None:
        if deployable.workload.batch != 1:
            raise ConfigError(
                "single_stream is of one example at a time",
                field="batch",
                value=deployable.workload.batch,
                allowed="1",
                hint="scenario=offline is of larger batches.",
            )

    def figure(self, measurement: Measurement, deployable: Deployable) -> Figure:
        return Figure(measurement.latency_ms, "ms", measurement.interval, f"{measurement.statistic} latency")


class Offline(Scenario):
    """Everything is there at once and is computed in batches: examples per second at the workload's batch."""

    name = "offline"

    def figure(self, measurement: Measurement, deployable: Deployable) -> Figure:
        batch = deployable.workload.batch
        low, high = measurement.interval or (0.0, 0.0)
        # The shortest latency is the highest throughput; a lower end of 0 ms bounds nothing.
        interval = (1e3 * batch / high, 1e3 * batch / low) if low > 0 else None
        return Figure(1e3 * batch / measurement.latency_ms, "examples/s", interval, f"throughput at batch {batch}")


class Decode(Scenario):
    """Generating: the latency of the one call that the plan repeats, divided by how often it is called.

    It is the mean over the steps of one plan: a step whose cache grows costs more than the step before.
    """

    name = "decode"

    def check(self, deployable: Deployable) -> None:
        self._repeated(deployable)

    def figure(self, measurement: Measurement, deployable: Deployable) -> Figure:
        graph, times = self._repeated(deployable)
        latency = measurement.latency_ms  # raises for a failed one
        total = measurement.parts.get(graph, latency)
        # The interval is of the whole plan: it is the step's where there is nothing else in the plan.
        alone = measurement.interval is not None and len(deployable.plan) == 1
        low, high = measurement.interval or (0.0, 0.0)
        return Figure(
            total / times,
            "ms",
            (low / times, high / times) if alone else None,
            f"{measurement.statistic} latency of {graph!r} per token, {times} tokens",
        )

    def _repeated(self, deployable: Deployable) -> tuple[str, int]:
        repeated = {call.graph for call in deployable.plan if call.times > 1}
        if len(repeated) != 1:
            raise ConfigError(
                f"{deployable.name} has {len(repeated)} repeated calls in its plan",
                field="scenario",
                value=self.name,
                allowed="plans that repeat one graph, such as an encoder-decoder's step",
            )
        graph = repeated.pop()
        return graph, sum(call.times for call in deployable.plan if call.graph == graph)


SCENARIOS: Mapping[str, Scenario] = {each.name: each() for each in (SingleStream, Offline, Decode)}


def scenario_named(name: str) -> Scenario:
    """The scenario of a name.

    Raises:
        ConfigError: With the names that there are.
    """
    if name not in SCENARIOS:
        raise ConfigError("no such scenario", field="scenario", value=name, allowed=list(SCENARIOS))
    return SCENARIOS[name]
