"""Reads what adb, Android's services and two benchmark programs print.

Formats: ``benchmark_model`` of TensorFlow Lite / LiteRT (its line of statistics, in microseconds),
``onnxruntime_perf_test`` (its result file, one line a run: name, seconds, peak memory in bytes, CPU
usage, number), ``adb devices``, ``getprop``, ``dumpsys thermalservice``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import DeviceError, MeasurementError
from .jobs import Quantiles

_STATISTICS = re.compile(r"\bcount=(?P<count>\d+)(?P<rest>(?: \w+=[-+.\w]+)*)")
_PEAK_MB = re.compile(r"[Pp]eak memory footprint \(MB\)(?: via periodic monitoring)?: (?:init=\S+ overall=)?([\d.]+)")
_THERMAL_STATUS = re.compile(r"^\s*Thermal Status:\s*(-?\d+)\s*$", re.MULTILINE)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(?P<value>-?[\d.]+), mType=(?P<type>-?\d+),")
_PROPERTY = re.compile(r"^\[(?P<name>[^]]+)\]: \[(?P<value>.*)\]$", re.MULTILINE)

CPU_TEMPERATURE = 0
"""Android's type of a processor's temperature."""
_NO_SENSOR_C = -50.0
"""Some phones report -99.9 for a sensor that they lack."""


@dataclass(frozen=True)
class BenchmarkRun:
    """One process of a benchmark program. Latencies in ms; NaN where the program does not say.

    Args:
        extra: Further latencies by name, in ms.
    """

    quantiles: Quantiles
    n_runs: int
    n_warmup: int
    peak_memory_bytes: int | None
    extra: Mapping[str, float]


def read_benchmark_model(text: str) -> BenchmarkRun:
    """What ``benchmark_model`` printed: its last line of statistics is of the timed runs.

    Raises:
        MeasurementError: If there is none, or it is of a version that prints no median.
    """
    found = list(_STATISTICS.finditer(text))
    if len(found) < 2:
        raise MeasurementError(f"benchmark_model gave no statistics{_last_words(text)}")
    values = {key: float(value) for key, value in (pair.split("=") for pair in found[-1]["rest"].split())}
    missing = sorted({"min", "median", "p5", "p95"} - values.keys())
    if missing:
        raise MeasurementError(
            f"this benchmark_model prints no {', '.join(missing)} (an average is not enough)",
            hint="Use a newer one, and more than one run.",
        )
    peak = _PEAK_MB.search(text)
    return BenchmarkRun(
        Quantiles(values["min"] * 1e-3, math.nan, values["median"] * 1e-3, math.nan),
        n_runs=int(found[-1]["count"]),
        n_warmup=int(found[-2]["count"]),
        peak_memory_bytes=None if peak is None else int(float(peak[1]) * 1e6),
        extra={"p5_ms": values["p5"] * 1e-3, "p95_ms": values["p95"] * 1e-3},
    )


def read_perf_test(text: str, n_warmup: int) -> BenchmarkRun:
    """The result file of ``onnxruntime_perf_test``, of which the first ``n_warmup`` runs do not count.

    Raises:
        MeasurementError: If it holds too few runs or something else.
    """
    rows = [line.rsplit(",", 4) for line in text.splitlines() if line.strip()]
    try:
        times_ms = np.array([float(row[1]) for row in rows if len(row) == 5])[n_warmup:] * 1e3
        peaks = [int(row[2]) for row in rows if len(row) == 5]
    except ValueError as error:
        raise MeasurementError(f"the result of onnxruntime_perf_test is not understood: {error}") from error
    if not times_ms.size or not (times_ms > 0).all():
        raise MeasurementError(f"onnxruntime_perf_test timed no run{_last_words(text)}")
    p10, median, p90 = np.quantile(times_ms, (0.1, 0.5, 0.9))
    return BenchmarkRun(
        Quantiles(float(times_ms.min()), float(p10), float(median), float(p90)),
        n_runs=int(times_ms.size),
        n_warmup=n_warmup,
        peak_memory_bytes=max(peaks) or None,
        extra={},
    )


def choose_phone(text: str, serial: str | None) -> str:
    """The serial of the phone to use, from what ``adb devices`` printed.

    Raises:
        DeviceError: If there is none, it is not ready, or there are several and none is named.
    """
    rows = [line.split(None, 1) for line in text.splitlines()[1:] if line.strip() and not line.startswith("*")]
    phones = {row[0]: row[1].strip() for row in rows if len(row) == 2}
    if serial is None and len(phones) > 1:
        raise DeviceError("several phones are connected", field="device.serial", value=None, allowed=sorted(phones))
    if not phones or (serial is not None and serial not in phones):
        raise DeviceError(
            "no such phone is connected" if phones else "no phone is connected",
            field="device.serial",
            value=serial,
            allowed=sorted(phones) or None,
            hint="Switch USB debugging on (Settings, Developer options) and look at `adb devices`.",
        )
    chosen = serial if serial is not None else next(iter(phones))
    state = phones[chosen]
    if state.split()[0] != "device":
        hint = "Accept this computer's key on the phone's screen." if state.startswith("unauthorized") else None
        raise DeviceError(f"the phone is not ready: {state}", field="device.serial", value=chosen, hint=hint)
    return chosen


def read_properties(text: str) -> dict[str, str]:
    """Android's system properties by name, from ``getprop``."""
    return {match["name"]: match["value"] for match in _PROPERTY.finditer(text.replace("\r", ""))}


def read_thermal(text: str) -> tuple[int | None, float | None]:
    """Android's throttling status (0 none, 1 light, 2 moderate, 3 severe, ...) and the hottest CPU sensor in
    degrees Celsius, from ``dumpsys thermalservice``; None where the phone does not say."""
    status = _THERMAL_STATUS.search(text)
    now = text.partition("Current temperatures from HAL:")[2] or text  # above it are cached, older ones
    cpu = [float(m["value"]) for m in _TEMPERATURE.finditer(now) if int(m["type"]) == CPU_TEMPERATURE]
    cpu = [value for value in cpu if value > _NO_SENSOR_C]
    return None if status is None else int(status[1]), max(cpu) if cpu else None


def _last_words(text: str, width: int = 200) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return f": {lines[-1][:width]}" if lines else ""
