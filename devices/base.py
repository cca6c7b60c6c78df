"""The contract of a device: hardware x runtime x threads, which measures deployables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy.typing as npt

from ..errors import DeviceError
from ..records import Fingerprint, Measurement, Setting, Statistic, Workload
from ..search_spaces import Deployable
from .protocol import Protocol


class Device(ABC):
    """Measures deployables. Runs ``gnomon.testing.DeviceSuite``.

    A device never raises for one model's crash, hang or wrong output: that is a measurement with
    verdict ``failed``, and the others go on.
    """

    name: ClassVar[str]
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]]
    """``torch``: modules. ``onnx``: exported files (the device exports modules itself).
    ``architecture``: only the identity is needed (recorded tables)."""

    precision: str = "fp32"
    """Number format that it computes in. Where it is another than ``fp32`` a study scores what the device answers."""
    statistic: Statistic
    """The one statistic of a study: predictor, constraint, verification and report all use it."""

    @classmethod
    @abstractmethod
    def unavailable(cls) -> str | None:
        """Why it cannot run here and what to install, or None if it can. Cheap; never raises."""

    @abstractmethod
    def setting(self, workload: Workload) -> Setting:
        """Identity of this device under ``workload``."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """The machine's state now."""

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        """``deployable`` as it runs here, new files in ``folder``: what a study ships, scores and verifies.

        A device that quantises gives the quantised files; the others what they were given.

        Raises:
            GnomonError: If this model cannot be brought into the form that runs here.
        """
        return deployable

    def answers(self, deployable: Deployable, inputs: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """What the runtime itself makes of inputs: quality is of these, where they are not the trained model's.

        Args:
            deployable: With a graph ``main``.
            inputs: Of that graph by name ``(N, *shape)``, ``shape`` with the workload's batch.

        Returns:
            Outputs by name ``(N, *shape)``.

        Raises:
            DeviceError: If this device cannot answer.
            MeasurementError: If the model does not run.
        """
        raise DeviceError("gives latencies, and no answers", field="device", value=self.name)

    @abstractmethod
    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        """One measurement per deployable, in the order of ``deployables``, after the last round.

        Deployables are measured together, so that their order can be shuffled and drift shared.

        Raises:
            DeviceError: If the device cannot run here, or not this kind of deployable.
        """
