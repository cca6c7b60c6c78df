"""Android phones through ``adb``, with a benchmark program that the user brings."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..errors import ConfigError, DeviceError, MeasurementError
from ..records import Fingerprint, Measurement, Setting, Statistic, Workload
from ..search_spaces import Deployable
from .adb_output import BenchmarkRun, read_benchmark_model, read_perf_test, read_properties, read_thermal
from .adb_shell import AdbShell, CommandFailedError
from .answers import Array
from .isolation import DeviceLostError, RoundResult
from .jobs import GraphJob, ModelJob, RoundJob, Sample
from .local import LocalDevice, Progress
from .onnx_device import OnnxDevice
from .protocol import Protocol

ADB = "adb"
STATISTICS_OF: Mapping[str, tuple[Statistic, ...]] = {
    ".onnx": ("minimum", "p10", "median", "p90"),
    ".tflite": ("minimum", "median"),
}
"""Formats that a benchmark program takes, and the statistics that it gives."""
THERMAL_STATUS = "thermal_status"
"""The fact under which Android's throttling status after a model's last process is recorded."""
MODERATE = 2
"""Android's throttling status from which a latency is another one than the phone's usual."""
COOLING_LIMIT_S = 120.0
"""So long a hot phone is waited for before a round."""
COOLING_STEP_S = 5.0
_MASK = re.compile(r"(0x)?[0-9a-fA-F]{1,16}")


@dataclass
class _Phone:
    """An open phone: its folder, what is on it, what it is."""

    shell: AdbShell
    folder: str
    copied: dict[str, str] = field(default_factory=dict)
    results: int = -1


class AdbDevice(LocalDevice):
    """An Android phone through adb: pushes models and times them with a benchmark program that you bring.

    **Never run on a phone by its authors**: written from the documentation and published output of adb
    and of both programs, and tested against transcripts of these. Check its first numbers against a run
    of the program by hand.

    ``benchmark`` is ``onnxruntime_perf_test`` where ``inner`` gives ONNX files, ``benchmark_model`` (TensorFlow
    Lite, LiteRT) where it gives ``.tflite`` files; both must be built for the phone. Neither shows a model's
    outputs, so that **answers are not checked on the phone**. ``benchmark_model`` gives no 10 % and 90 %
    quantile: they stay empty. Only models of one graph that is called once.

    Args:
        inner: Converts models: its format and precision are those that are timed.
        benchmark: The program for the phone, a file on this machine.
        libraries: Further files that the program needs beside it, shared libraries above all.
        serial: Which phone; None for the only one.
        taskset: Mask of cores in hexadecimal, ``f0`` for the upper four of eight; None for no pinning.
        provider: ONNX Runtime's execution provider as ``onnxruntime_perf_test`` calls it.
        arguments: Further arguments of the program, such as ``--use_gpu=true``; part of the setting.
        on_progress: See :class:`~gnomon.devices.local.LocalDevice`.

    Raises:
        ConfigError: If an argument is missing or out of range.
    """

    name: ClassVar[str] = "adb"
    accepts: ClassVar[Literal["torch", "onnx", "architecture"]] = "onnx"
    runner: ClassVar[str] = ""

    def __init__(
        self,
        inner: LocalDevice,
        benchmark: str | None = None,
        libraries: Sequence[str] = (),
        serial: str | None = None,
        taskset: str | None = None,
        provider: str = "cpu",
        arguments: Sequence[str] = (),
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        if not isinstance(inner, OnnxDevice):
            raise ConfigError("converts no files for a phone", field="device.inner", value=inner)
        super().__init__(inner.threads, inner.statistic, on_progress=on_progress)
        if not benchmark:
            raise ConfigError(
                "which program?",
                field="device.benchmark",
                value=benchmark,
                allowed="the file onnxruntime_perf_test or benchmark_model, built for the phone",
            )
        mask = None if taskset is None else str(taskset)  # f0 is text, 80 a number in YAML
        if mask is not None and not _MASK.fullmatch(mask):
            raise ConfigError("not a mask of cores", field="device.taskset", value=taskset, allowed="such as f0")
        self.inner, self.precision, self.serial = inner, inner.precision, serial
        self.benchmark = Path(benchmark).expanduser()
        self.libraries = tuple(Path(path).expanduser() for path in libraries)
        self.taskset = mask.removeprefix("0x") if mask is not None else None
        self.provider, self.extra_arguments = provider, tuple(str(argument) for argument in arguments)
        self._phone: _Phone | None = None
        self._state: tuple[Fingerprint, str] | None = None
        self._runs: dict[str, float] = {}

    # ---- What is timed, and where ----------------------------------------------------------

    @classmethod
    def unavailable(cls) -> str | None:
        return None if shutil.which(ADB) else "adb is not installed: Android's platform-tools have it"

    def options(self) -> Mapping[str, Any]:
        own = {"taskset": self.taskset, "provider": self.provider, "arguments": list(self.extra_arguments)}
        return {**self.inner.options(), **own}

    def reference(self, folder: Path) -> ModelJob:
        return self.inner.reference(folder)

    def prepare(self, deployable: Deployable, folder: Path) -> ModelJob:
        return self.inner.prepare(deployable, folder)

    def deployed(self, deployable: Deployable, folder: Path) -> Deployable:
        return self.inner.deployed(deployable, folder)

    def answers(self, deployable: Deployable, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As the inner device answers on this machine: benchmark programs show no outputs."""
        return self.inner.answers(deployable, inputs)

    @property
    def calibration(self) -> Sequence[Mapping[str, Array]] | None:
        """Of the inner device, see :class:`~gnomon.devices.onnx_device.OnnxDevice`."""
        return self.inner.calibration

    @calibration.setter
    def calibration(self, samples: Sequence[Mapping[str, Array]] | None) -> None:
        self.inner.calibration = samples

    def check(self, deployable: Deployable) -> None:
        self.inner.check(deployable)
        if len(deployable.plan) != 1 or deployable.plan[0].times != 1:
            raise DeviceError(
                "benchmark programs time one graph that is called once",
                field="device",
                value=self.name,
                hint=f"{deployable.name} has a longer plan.",
            )

    def hardware(self) -> str:
        return self._about()[1]

    def cores(self) -> int:
        return self._about()[0].cores

    def fingerprint(self) -> Fingerprint:
        """The phone's state when it was first asked."""
        return self._about()[0]

    def setting(self, workload: Workload) -> Setting:
        fingerprint, hardware = self._about()
        inner = self.inner.name
        return Setting(
            f"{self.name}_{inner}",
            hardware,
            fingerprint.runtime,
            workload,
            self.threads,
            self.precision,
            self.options(),
        )

    # ---- Measuring -------------------------------------------------------------------------

    def measure(self, deployables: Sequence[Deployable], protocol: Protocol, *, seed: int = 0) -> Iterator[Measurement]:
        """See :class:`~gnomon.devices.Device`.

        Raises:
            DeviceError: Also if there is no such phone, or it is not ready.
            DeviceLostError: If it is gone; after the measurements that came before.
        """
        if (reason := self.inner.unavailable()) is not None:
            raise DeviceError(reason, field="device", value=self.name)
        self._runs = {}
        with self._connected():
            results = super().measure(deployables, protocol, seed=seed)
        return (self._as_known(result) for result in results)

    def run_round(self, job: RoundJob, on_model: Callable[[int], None] | None) -> RoundResult:
        result = RoundResult()
        try:
            with self._connected() as phone:
                self._cool_down(phone)
                reference = self._time_reference(phone, job)
                for index, model in enumerate(job.models):
                    try:
                        run = self._time(phone, model, job.protocol)
                    except MeasurementError as error:
                        result.errors[index] = str(error)
                    else:
                        self._runs[model.name] = run.quantiles.median
                        result.samples[index] = self._sample(run, reference, self._thermal_status(phone))
                    if on_model:
                        on_model(index)
        except DeviceLostError as error:
            self._phone = None
            error.result = result
            raise
        return result

    def _time_reference(self, phone: _Phone, job: RoundJob) -> BenchmarkRun | None:
        try:
            return None if job.reference is None else self._time(phone, job.reference, job.protocol)
        except MeasurementError as error:
            raise DeviceError(
                f"the reference model does not run: {error}", field="device.benchmark", value=str(self.benchmark)
            ) from error

    def _time(self, phone: _Phone, model: ModelJob, protocol: Protocol) -> BenchmarkRun:
        """One process of the benchmark program for one model."""
        (graph,) = model.graphs.values()
        try:
            remote = self._copy(phone, graph)
            n = self._n_runs(model.name, protocol)
            if remote.endswith(".tflite"):
                command = self._benchmark_model(phone, remote, n, protocol)
                return read_benchmark_model(phone.shell.run(command, protocol.timeout_s))
            phone.results += 1
            result = f"{phone.folder}/{phone.results}.result"  # the program appends to an older one
            phone.shell.run(self._perf_test(phone, remote, graph, result, n + protocol.warmup_runs), protocol.timeout_s)
            return read_perf_test(phone.shell.run(["cat", result]), protocol.warmup_runs)
        except TimeoutError:
            phone.shell.end(phone.folder)
            raise MeasurementError(f"gave no result within {protocol.timeout_s:g} s (protocol.timeout_s)") from None

    def _n_runs(self, name: str, protocol: Protocol) -> int:
        """Timed runs: as many as fit the time cap, once a round has said how long one takes."""
        median_ms = self._runs.get(name)
        wanted = protocol.min_runs if median_ms is None else int(protocol.time_cap_s * 1e3 / median_ms)
        return min(max(wanted, protocol.min_runs), protocol.max_runs)

    def _command(self, phone: _Phone, *arguments: str) -> list[str]:
        pinned = [] if self.taskset is None else ["taskset", self.taskset]
        program = f"{phone.folder}/{self.benchmark.name}"
        return ["env", f"LD_LIBRARY_PATH={phone.folder}", *pinned, program, *arguments]

    def _benchmark_model(self, phone: _Phone, model: str, n: int, protocol: Protocol) -> list[str]:
        return self._command(
            phone,
            f"--graph={model}",
            f"--num_threads={self.threads}",
            f"--num_runs={n}",
            f"--warmup_runs={max(protocol.warmup_runs, 1)}",
            f"--min_secs={protocol.time_cap_s:g}",
            f"--max_secs={protocol.timeout_s:g}",
            *self.extra_arguments,
        )

    def _perf_test(self, phone: _Phone, model: str, graph: GraphJob, result: str, n: int) -> list[str]:
        sizes = free_dimensions(Path(str(graph.path)), graph)
        dimensions = [word for name, size in sizes.items() for word in ("-f", f"{name}:{size}")]
        # -I: random inputs, -S: their seed; -m times -r: so many runs; -x, -y: threads in and across operators.
        words = ["-I", "-S", "0", "-e", self.provider, "-m", "times", "-r", str(n), "-x", str(self.threads), "-y", "1"]
        return self._command(phone, *words, *dimensions, *self.extra_arguments, model, result)

    def _sample(self, run: BenchmarkRun, reference: BenchmarkRun | None, thermal_status: int) -> Sample:
        return Sample(
            run.quantiles,
            {"main": run.quantiles},
            run.n_runs,
            run.n_warmup,
            run.peak_memory_bytes,
            None if reference is None else reference.quantiles,
            realtime=False,
            pinned=self.taskset is not None,
            facts={**run.extra, THERMAL_STATUS: float(thermal_status)},
        )

    def _as_known(self, result: Measurement) -> Measurement:
        """Quantiles that the program does not give are None; a phone that throttled to the end says so."""
        known = {name: getattr(result, name) for name in ("minimum", "p10", "median", "p90")}
        known = {name: None if value is not None and math.isnan(value) else value for name, value in known.items()}
        hot = result.verdict != "failed" and result.facts.get(THERMAL_STATUS, 0.0) >= MODERATE
        return replace(result, verdict="throttled" if hot else result.verdict, **known)

    # ---- The phone -------------------------------------------------------------------------

    @contextmanager
    def _connected(self) -> Iterator[_Phone]:
        """The phone with the program on it; its folder goes when the outermost context ends."""
        if self._phone is not None:
            yield self._phone
            return
        for path in (self.benchmark, *self.libraries):
            if not path.is_file():
                raise ConfigError("no such file", field="device.benchmark", value=str(path))
        try:
            shell = AdbShell(ADB, self.serial)
            self._phone = phone = _Phone(shell, shell.make_folder())
            for path in (self.benchmark, *self.libraries):
                shell.push(path, f"{phone.folder}/{path.name}")
            shell.run(["chmod", "755", f"{phone.folder}/{self.benchmark.name}"])
        except (CommandFailedError, TimeoutError) as error:
            raise DeviceError(f"cannot be prepared: {error}", field="device.serial", value=self.serial) from error
        try:
            yield phone
        finally:
            self._phone = None
            shell.remove_folder(phone.folder)

    def _copy(self, phone: _Phone, graph: GraphJob) -> str:
        """Pushes a model's file, once; the names on the phone are ours."""
        path = Path(str(graph.path))
        suffix = path.suffix
        if suffix not in STATISTICS_OF:
            raise MeasurementError(
                "no benchmark program takes it", field="path", value=path.name, allowed=STATISTICS_OF
            )
        if self.statistic not in STATISTICS_OF[suffix]:
            raise DeviceError(
                f"the program for {suffix} files does not give it",
                field="device.inner.statistic",
                value=self.statistic,
                allowed=STATISTICS_OF[suffix],
            )
        if graph.path not in phone.copied:
            remote = f"{phone.folder}/{len(phone.copied)}{suffix}"
            phone.shell.push(path, remote)
            phone.copied[str(graph.path)] = remote
        return phone.copied[str(graph.path)]

    def _thermal_status(self, phone: _Phone) -> int:
        return read_thermal(phone.shell.ask(["dumpsys", "thermalservice"]))[0] or 0

    def _cool_down(self, phone: _Phone) -> None:
        end = time.monotonic() + COOLING_LIMIT_S
        while self._thermal_status(phone) >= MODERATE and time.monotonic() < end:
            time.sleep(COOLING_STEP_S)

    def _about(self) -> tuple[Fingerprint, str]:
        """The phone's fingerprint and name, asked once."""
        if self._state is None:
            with self._connected() as phone:
                self._state = describe_phone(phone.shell, self._program(), self.threads, self.precision)
        return self._state

    def _program(self) -> str:
        """The program's name and the start of its digest: programs do not tell their version."""
        return f"{self.benchmark.name} sha256:{sha256(self.benchmark.read_bytes()).hexdigest()[:12]}"


def describe_phone(shell: AdbShell, runtime: str, threads: int, precision: str) -> tuple[Fingerprint, str]:
    """What a phone says of itself: its fingerprint, and its maker, model and processor."""
    said = read_properties(shell.ask(["getprop"]))
    names = [said.get(f"ro.product.{key}", "") for key in ("manufacturer", "model")]
    chip = said.get("ro.soc.model") or said.get("ro.board.platform") or "unknown processor"
    load = shell.ask(["cat", "/proc/loadavg"]).split()
    memory = re.search(r"^MemTotal:\s+(\d+) kB", shell.ask(["cat", "/proc/meminfo"]), re.MULTILINE)
    cores = shell.ask(["nproc"])
    governor = shell.ask(["cat", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"])
    fingerprint = Fingerprint(
        cpu=chip,
        cores=int(cores) if cores.isdigit() else 1,
        memory_bytes=int(memory[1]) * 1024 if memory else 0,
        os=f"Android {said.get('ro.build.version.release', 'unknown')}",
        python="none",
        runtime=runtime,
        threads=threads,
        precision=precision,
        governor=governor or None,
        load_1min=float(load[0]) if load else None,
    )
    return fingerprint, f"{' '.join(filter(None, names)) or 'unknown phone'}, {chip}"


def free_dimensions(path: Path, graph: GraphJob) -> dict[str, int]:
    """Sizes of an ONNX file's symbolic axes by name, as the job has them.

    Raises:
        MeasurementError: If an axis without a name is to be another size than 1.
    """
    import onnx

    try:
        inputs = {value.name: value for value in onnx.load(path, load_external_data=False).graph.input}
    except Exception as error:  # protobuf's own error type differs between its implementations
        raise MeasurementError("not an ONNX model", field="path", value=path.name) from error
    sizes: dict[str, int] = {}
    for tensor in graph.inputs:
        for axis, size in zip(inputs[tensor.name].type.tensor_type.shape.dim, tensor.shape, strict=True):
            if axis.dim_param:
                sizes[axis.dim_param] = size
            elif not axis.HasField("dim_value") and size != 1:
                raise MeasurementError(
                    f"an axis of {tensor.name!r} has neither size nor name", field="path", value=path.name
                )
    return sizes
