"""Published measurements as a device: the whole road can be tried against real hardware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar, Literal

import numpy as np

from ..errors import DataError, DeviceError, GnomonError
from ..records import ArchitectureTable, Fingerprint, Measurement, Setting, Statistic, Workload
from ..search_spaces import Architecture, Deployable
from .base import Device
from .protocol import Protocol


class RecordedDevice(Device):
    """One latency column of a published table. Nothing runs; every statistic is the table's value.

    Args:
        table: The table (:mod:`gnomon.records.tables` has readers).
        column: Its latency column in ms, one device of the table.
        statistic: The study's statistic; the table has one value for all.

    Raises:
        DataError: If the table has no such column.
    """

    name: ClassVar[str] = "recorded"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "architecture"

    def __init__(self, table: ArchitectureTable, column: str, statistic: Statistic = "median") -> None:
        if column not in table.columns:
            raise DataError(
                "not recorded in this table", field="device.column", value=column, allowed=sorted(table.columns)
            )
        self.table = table
        self.column = column
        self.statistic = statistic

    @classmethod
    def unavailable(cls) -> str | None:
        return None

    def setting(self, workload: Workload) -> Setting:
        return Setting(
            f"{self.name}_{self.column}", self.column, "recorded", workload, options={"source": self.table.source}
        )

    def fingerprint(self) -> Fingerprint:
        """Provenance in place of a machine's state: the table says no more."""
        return Fingerprint(
            cpu=self.column,
            cores=0,
            memory_bytes=0,
            os="unknown",
            python="unknown",
            runtime=f"recorded: {self.table.source}",
            threads=1,
            precision="fp32",
        )

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        architectures = [self._architecture(deployable) for deployable in deployables]
        return iter(
            [
                self._measurement(deployable, self._lookup(architecture), protocol)
                for deployable, architecture in zip(deployables, architectures, strict=True)
            ]
        )

    def _architecture(self, deployable: Deployable) -> Architecture:
        architecture, space = deployable.architecture, self.table.space
        if architecture is None or architecture.space.get("_target_") != space.spec()["_target_"]:
            raise DeviceError(
                "this table holds architectures of one space only",
                field="device",
                value=self.name,
                allowed=f"architectures of {space.name}",
                hint=f"{deployable.name} is not one.",
            )
        return architecture

    def _lookup(self, architecture: Architecture) -> float | str:
        """Milliseconds, or why there are none."""
        try:
            row = self.table.space.genotype(architecture.config)
        except GnomonError as error:
            return str(error)
        value = float(self.table.lookup(row[None], self.column)[0])
        if np.isnan(value):
            return f"not recorded in {self.table.source}, column {self.column}"
        return value

    def _measurement(self, deployable: Deployable, found: float | str, protocol: Protocol) -> Measurement:
        measurement = Measurement(
            architecture=deployable.name,
            setting=self.setting(deployable.workload),
            protocol=protocol.id,
            statistic=self.statistic,
            verdict="failed",
            fingerprint=self.fingerprint(),
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if isinstance(found, str):
            return replace(measurement, error=found)
        return replace(
            measurement,
            verdict="good",
            minimum=found,
            p10=found,
            median=found,
            p90=found,
            interval=(found, found),
            process_values=(found,),
        )
