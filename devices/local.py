"""A device of this machine: drives the protocol over a runner in child processes."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..errors import ConfigError, DeviceError, GnomonError
from ..records import STATISTICS, Fingerprint, Measurement, Setting, Statistic, Workload
from ..search_spaces import Deployable
from .answers import Array
from .base import Device
from .fingerprint import cpu_model, machine_fingerprint
from .isolation import DeviceLostError, RoundResult, run_here
from .jobs import ModelJob, RoundJob, Sample
from .load import Load
from .protocol import Protocol
from .reference import reference_job
from .sampling import Summary, process_values, summarise, typical_noise


@dataclass(frozen=True)
class Progress:
    """Where a measurement stands: ``model`` (its name) is the ``done``-th of ``total`` in ``round``."""

    round: int
    rounds: int
    done: int
    total: int
    model: str


class LocalDevice(Device):
    """Base of the devices whose runner works on this machine.

    A subclass names its ``runner`` and package, says what is missing in :meth:`unavailable`, and
    gives the options that change latency in :meth:`options`.

    Args:
        threads: Threads of one inference; the process is pinned to as many cores.
        statistic: The study's statistic within a process; over processes the smallest counts (see
            :mod:`gnomon.devices.sampling`, also for why ``median`` is the default).
        precision: Number format of the model, part of the setting.
        on_progress: Called after each model of each round.

    Raises:
        ConfigError: If an argument is out of range.
    """

    runner: ClassVar[str]
    """Class path of the runner."""
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    """What ``precision`` may be."""
    load: Load | None = None
    """Kept up while it measures, models being scheduled like any process: see :mod:`gnomon.devices.loaded`."""

    def __init__(
        self,
        threads: int = 1,
        statistic: Statistic = "median",
        precision: str = "fp32",
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if threads < 1:  # the cores are counted where it runs, which may be another machine
            raise _too_many_or_few(threads, os.cpu_count() or 1)
        if statistic not in STATISTICS:
            raise ConfigError("no such statistic", field="device.statistic", value=statistic, allowed=STATISTICS)
        if precision not in self.precisions:
            raise ConfigError(
                f"not a precision of {self.name}", field="device.precision", value=precision, allowed=self.precisions
            )
        self.threads = threads
        self.statistic = statistic
        self.precision = precision
        self.on_progress = on_progress

    # ---- What a subclass may say -----------------------------------------------------------

    @classmethod
    def runtime(cls) -> str:
        """Runtime and version, without importing it."""
        return cls.name

    def hardware(self) -> str:
        """What computes: the processor's name, or the accelerator's."""
        return cpu_model()

    def cores(self) -> int:
        """Cores of the machine that computes."""
        return os.cpu_count() or 1

    def options(self) -> Mapping[str, Any]:
        """Options of the runner that change latency."""
        return {}

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments that make an equal device: what a remote host rebuilds it from."""
        taken = inspect.signature(type(self)).parameters.values()
        names = [each.name for each in taken if each.kind is not each.VAR_KEYWORD and each.name != "on_progress"]
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def reference(self, folder: Path) -> ModelJob:
        """The reference model as this runner takes it; files go into ``folder``."""
        return reference_job()

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        """What the child needs of ``deployable``; files go into ``folder``.

        Raises:
            GnomonError: If this model cannot be prepared; it costs a failed measurement.
        """
        return ModelJob.of(deployable)

    def check(self, deployable: Deployable) -> None:
        """Raises DeviceError if this kind of deployable is not for this device."""

    def run_round(self, job: RoundJob, on_model: Callable[[int], None] | None) -> RoundResult:
        """Times the models of one round where this device computes: see
        :func:`~gnomon.devices.isolation.run_round`.

        Raises:
            DeviceLostError: If that machine went away; what came before is kept.
        """
        return run_here(job, on_model)

    # ---- The contract ----------------------------------------------------------------------

    def setting(self, workload: Workload) -> Setting:
        return Setting(
            self.name, self.hardware(), self.runtime(), workload, self.threads, self.precision, dict(self.options())
        )

    def answers(self, deployable: Deployable, inputs: Mapping[str, Array]) -> dict[str, Array]:
        from .questions import ask

        return ask(self, deployable, inputs)

    def fingerprint(self) -> Fingerprint:
        return machine_fingerprint(self.runtime(), self.threads, self.precision)

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        reason = self.unavailable()
        if reason is not None:
            raise DeviceError(reason, field="device", value=self.name)
        for deployable in deployables:
            self.check(deployable)
        if self.threads > self.cores():
            raise _too_many_or_few(self.threads, self.cores())
        with tempfile.TemporaryDirectory(prefix="gnomon-") as folder:
            return _Measuring(self, deployables, protocol, seed, Path(folder)).run()


class _Measuring:
    """One call of :meth:`LocalDevice.measure`. Models are known by their index in ``deployables``."""

    def __init__(
        self, device: LocalDevice, deployables: Sequence[Deployable], protocol: Protocol, seed: int, folder: Path
    ) -> None:
        self._device, self._deployables, self._protocol, self._seed = device, deployables, protocol, seed
        self._jobs: dict[int, ModelJob] = {}
        self._samples: dict[int, list[Sample]] = {}
        self._errors: dict[int, str] = {}
        for index, deployable in enumerate(deployables):
            part = folder / str(index)
            part.mkdir()
            try:
                self._jobs[index] = device.prepare(deployable, part)
            except GnomonError as error:
                self._errors[index] = str(error)
            self._samples[index] = []
        self._reference = device.reference(folder) if protocol.interleave and self._jobs else None

    def run(self) -> Iterator[Measurement]:
        lost: DeviceLostError | None = None
        for number in range(self._protocol.processes):
            unfinished = [index for index in self._jobs if not self._finished(index)]
            if not unfinished:
                break
            try:
                self._round(number, unfinished)
            except DeviceLostError as error:
                lost = error
                break
        # Without the machine, what has no sample has no measurement, and nothing after it has its place.
        known = range(len(self._deployables))
        measured = [
            self._measurement(index)
            for index in takewhile(lambda i: lost is None or self._samples[i] or i in self._errors, known)
        ]
        if lost is not None and not measured:
            raise lost
        return _until_lost(measured, lost if len(measured) < len(known) else None)

    def _finished(self, index: int) -> bool:
        """Failed, or within the target: later rounds time the others only."""
        samples = self._samples[index]
        if index in self._errors:
            return True
        if len(samples) < self._protocol.min_processes:
            return False
        return self._summary(index).verdict == "good"

    def _summary(self, index: int) -> Summary:
        """One model's summary, with the noise that all models of this measurement show."""
        statistic = self._device.statistic
        series = [process_values(samples, statistic) for samples in self._samples.values()]
        return summarise(self._samples[index], statistic, self._protocol, noise=typical_noise(series))

    def _round(self, number: int, indices: list[int]) -> None:
        rng = np.random.default_rng((self._seed, number))
        order = [indices[i] for i in rng.permutation(len(indices))]
        try:
            result = self._device.run_round(self._job(order), self._reporter(number, order))
        except DeviceLostError as error:
            self._keep(error.result, order)
            raise
        self._keep(result, order)

    def _keep(self, result: RoundResult, order: list[int]) -> None:
        for position, sample in result.samples.items():
            self._samples[order[position]].append(sample)
        for position, error in result.errors.items():
            self._errors[order[position]] = error

    def _job(self, order: list[int]) -> RoundJob:
        device, protocol = self._device, self._protocol
        if device.load is not None:
            protocol = replace(protocol, pin=False, realtime=False)
        return RoundJob(
            device.runner,
            device.threads,
            device.options(),
            tuple(self._jobs[index] for index in order),
            protocol,
            self._reference,
            load=device.load,
            import_paths=tuple(os.path.abspath(path) for path in sys.path),
        )

    def _reporter(self, number: int, order: list[int]) -> Callable[[int], None] | None:
        report = self._device.on_progress
        if report is None:
            return None
        done = iter(range(1, len(order) + 1))

        def on_model(position: int) -> None:
            name = self._deployables[order[position]].name
            report(Progress(number + 1, self._protocol.processes, next(done), len(order), name))

        return on_model

    def _measurement(self, index: int) -> Measurement:
        deployable, samples, device = self._deployables[index], self._samples[index], self._device
        error = self._errors.get(index)
        summary = self._summary(index) if samples and error is None else None
        fingerprint = replace(
            device.fingerprint(),
            pinned=bool(samples) and all(s.pinned for s in samples),
            realtime=bool(samples) and all(s.realtime for s in samples),
        )
        measurement = Measurement(
            architecture=deployable.name,
            setting=device.setting(deployable.workload),
            protocol=self._protocol.id,
            statistic=device.statistic,
            verdict="failed",
            fingerprint=fingerprint,
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if summary is None:
            return replace(measurement, error=error or "no process gave a result")
        return replace(
            measurement,
            minimum=summary.quantiles.minimum,
            p10=summary.quantiles.p10,
            median=summary.quantiles.median,
            p90=summary.quantiles.p90,
            verdict=summary.verdict,
            interval=summary.interval,
            process_values=summary.process_values,
            n_runs=summary.n_runs,
            n_warmup=summary.n_warmup,
            parts=summary.parts,
            peak_memory_bytes=summary.peak_memory_bytes,
            drift=summary.drift,
            contention=summary.contention,
            steady=summary.steady,
            energy_mj=summary.energy_mj,
            facts=dict(samples[-1].facts),
        )


def _until_lost(measured: Sequence[Measurement], lost: DeviceLostError | None) -> Iterator[Measurement]:
    """What was measured, and then the loss: whoever stores one measurement after the other keeps these."""
    yield from measured
    if lost is not None:
        raise lost


def _too_many_or_few(threads: int, cores: int) -> ConfigError:
    return ConfigError("not a number of threads here", field="device.threads", value=threads, allowed=f"1 to {cores}")
