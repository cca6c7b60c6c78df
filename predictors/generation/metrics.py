"""What users of a language model wait for, from measurements: first token, each further token, memory.

A measurement is of one phase (``workload.phase``), or of a plan of both, whose parts are called ``prefill`` and
``step``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import PredictorError
from ...records.measurement import Measurement
from ...schema import Record
from .work import Phase

MS_PER_S = 1000.0


@dataclass(frozen=True)
class GenerationMetrics(Record):
    """Generation by one model in one setting.

    Args:
        time_to_first_token_ms: Prefill of the prompt.
        prompt_tokens: Of that prompt.
        ms_per_token: Of one step, whatever the batch.
        context: Tokens before that step.
        tokens_per_s: Of all sequences of the batch together, while steps run.
        batch: Sequences at once.
        peak_memory_bytes: The larger of both phases', of the process; None where it is not known.
        energy_per_token_mj: Of one step by the batch; None without a meter.
    """

    SCHEMA: ClassVar[str] = "gnomon.generation_metrics/1"

    time_to_first_token_ms: float
    prompt_tokens: int | None
    ms_per_token: float
    context: int | None
    tokens_per_s: float
    batch: int
    peak_memory_bytes: int | None
    energy_per_token_mj: float | None


def generation_metrics(prefill: Measurement, step: Measurement) -> GenerationMetrics:
    """Metrics of a model whose phases were measured; one measurement of the whole plan may be both.

    Raises:
        PredictorError: If a phase is missing, or the two differ in batch.
        MeasurementError: If a measurement failed.
    """
    workload = step.setting.workload
    if prefill.setting.workload.batch != workload.batch:
        raise PredictorError(
            "another batch than the step's",
            field="batch",
            value=prefill.setting.workload.batch,
            allowed=str(workload.batch),
        )
    return GenerationMetrics(
        time_to_first_token_ms(prefill),
        prefill.setting.workload.source_length,
        ms_per_token(step),
        workload.context,
        tokens_per_s(step),
        workload.batch,
        peak_memory_bytes(prefill, step),
        energy_per_token_mj(step),
    )


def time_to_first_token_ms(measurement: Measurement) -> float:
    """Time of a prefill.

    Raises:
        PredictorError: If none was measured.
        MeasurementError: If the measurement failed.
    """
    return _phase_ms(measurement, "prefill")


def ms_per_token(measurement: Measurement) -> float:
    """Time of one step, at the context that the workload says (or, of a whole plan, on average).

    Raises:
        PredictorError: If none was measured.
        MeasurementError: If the measurement failed.
    """
    return _phase_ms(measurement, "step") / _steps(measurement)


def tokens_per_s(measurement: Measurement) -> float:
    """Tokens that steps give in a second, of all sequences of the batch together.

    Raises:
        PredictorError: If no step was measured.
        MeasurementError: If the measurement failed.
    """
    return MS_PER_S * measurement.setting.workload.batch / ms_per_token(measurement)


def energy_per_token_mj(measurement: Measurement) -> float | None:
    """Energy of one step above idle; None without a meter, or where a prefill's is in it."""
    is_step = measurement.setting.workload.phase == "step"
    return measurement.energy_mj / _steps(measurement) if measurement.energy_mj is not None and is_step else None


def peak_memory_bytes(*measurements: Measurement) -> int | None:
    """The largest resident memory of the measuring processes, the runtime included; None if any is unknown."""
    peaks = [measurement.peak_memory_bytes for measurement in measurements]
    known = [peak for peak in peaks if peak is not None]
    return max(known) if known and len(known) == len(peaks) else None


def call_ms(measurement: Measurement) -> float:
    """Time of one call of the graph whose phase was measured.

    Raises:
        PredictorError: If it was no single phase.
        MeasurementError: If the measurement failed.
    """
    if measurement.setting.workload.phase == "step":
        return ms_per_token(measurement)
    return time_to_first_token_ms(measurement)


def _phase_ms(measurement: Measurement, phase: Phase) -> float:
    whole = measurement.latency_ms
    if measurement.setting.workload.phase == phase:
        return measurement.parts.get(phase, whole)
    if measurement.setting.workload.phase or phase not in measurement.parts:
        raise PredictorError(
            f"no {phase} was measured",
            field="measurement",
            value=measurement.architecture,
            allowed=f"a workload of phase {phase!r}, or a plan with that part",
        )
    return float(measurement.parts[phase])


def _steps(measurement: Measurement) -> int:
    return measurement.setting.workload.generated_length or 1
