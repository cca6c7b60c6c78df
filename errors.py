"""The exception tree: one clear line for whoever made the mistake.

Every error that a user can cause derives from :class:`GnomonError`; the command line prints it
without a stack trace and ends with its ``exit_code``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class GnomonError(Exception):
    """A mistake that a user can mend.

    Args:
        problem: What is wrong, in one line.
        field: Name of the config key or argument at fault, for example ``objective.latency_ms``.
        value: The offending value.
        allowed: What is allowed instead: a sentence, or the legal values.
        hint: What to do now, for example an install command.
    """

    exit_code = 2

    def __init__(
        self,
        problem: str,
        *,
        field: str | None = None,
        value: Any = None,
        allowed: str | Iterable[Any] | None = None,
        hint: str | None = None,
    ) -> None:
        self.problem = problem
        self.field = field
        self.value = value
        self.allowed = allowed
        self.hint = hint
        super().__init__(self._line())

    def _line(self) -> str:
        line = self.problem
        if self.field is not None:
            line = f"{self.field}={_shown(self.value)}: {line}"
        if self.allowed is not None:
            allowed = self.allowed
            if not isinstance(allowed, str):
                allowed = ", ".join(str(choice) for choice in allowed)
            line = f"{line} (allowed: {allowed})"
        return f"{line}. {self.hint}" if self.hint else line


def _shown(value: Any, width: int = 120) -> str:
    text = repr(value)
    return text if len(text) <= width else f"{text[: width - 1]}…"


class ConfigError(GnomonError):
    """A config key or value is unknown, of the wrong type or out of range."""


class DependencyError(GnomonError):
    """An optional dependency is missing; the hint is the install command."""


class SchemaError(GnomonError):
    """A file was written by another program, another version, or is damaged."""


class SpaceError(GnomonError):
    """A search space, genotype or architecture config is not valid."""


class DataError(GnomonError):
    """A data set or recorded table is missing or malformed."""


class TaskError(GnomonError):
    """A task or evaluator cannot do what was asked."""


class DeviceError(GnomonError):
    """A device is unknown or cannot run here."""


class MeasurementError(GnomonError):
    """A measurement failed: crash, time limit, or wrong output."""


class ExportError(GnomonError):
    """A model could not be exported, or the file does not answer like the torch model."""


class PredictorError(GnomonError):
    """A predictor cannot be fitted, adapted or loaded."""


class StrategyError(GnomonError):
    """A strategy cannot serve this space or objective."""


class StudyError(GnomonError):
    """A study cannot be opened, resumed or written."""


class InfeasibleError(GnomonError):
    """No architecture of the space meets the constraint; the message is the diagnosis."""
