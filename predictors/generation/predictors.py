"""Latency predictors of language models whose columns are known beforehand: from a look-up table, from a roofline.

Shapes: N architectures, F columns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from ...search_spaces import Genotypes, SearchSpace
from ...search_spaces.hybrid_slm.sizes import Work
from ...search_spaces.hybrid_slm.specs import LanguageModelSpec, Operator
from ..base import LatencyModel
from ..bundle import SavableLatencyModel
from ..checks import checked_measurements
from ..regression import REGRESSORS, Regression, RegressionPredictor
from ..regressors import Regressor, fit_positive_line
from .on_spaces import CallFigures, PopulationFigures
from .operator_table import OperatorTable
from .roofline import Roofline
from .work import Phase, base_work, operator_work

FloatArray = npt.NDArray[np.float64]

UNMEASURED_NOISE = 0.1
"""Deviation of a table's sum that no whole model was compared with, as a share: the error that its benchmark allows."""
NORMALISING_SAMPLE = 64


class CallColumns(ABC):
    """Columns of a population: figures of its workload's calls.

    Args:
        space: Of language models.
        figures: Of calls.

    Raises:
        PredictorError: If the space has no language models.
    """

    kind: ClassVar[str]

    def __init__(self, space: SearchSpace, figures: CallFigures) -> None:
        self.space = space
        self.figures = PopulationFigures(space, figures)

    def __call__(self, genotypes: Genotypes) -> FloatArray:
        """``(N, F)``, each column of mean 1 over the space."""
        return self.figures(genotypes) / self._scale

    @abstractmethod
    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What :meth:`from_arrays` needs beside the space."""

    @classmethod
    @abstractmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> CallColumns:
        """The columns that :meth:`to_arrays` described; KeyError if an array is missing."""

    @cached_property
    def _scale(self) -> FloatArray:
        mean = self.figures(self.space.sample(NORMALISING_SAMPLE, np.random.default_rng(0))).mean(axis=0)
        return np.where(mean > 0, mean, 1.0)


class TableFigures(CallFigures):
    """Entries of a look-up table, in ms."""

    names = ("ms",)

    def __init__(self, table: OperatorTable) -> None:
        self.table = table

    def of_operator(self, operator: Operator, phase: Phase, length: int) -> FloatArray:
        return np.array([self.table.operator_ms(operator, phase, length)])

    def of_base(self, spec: LanguageModelSpec, phase: Phase, length: int) -> FloatArray:
        return np.array([self.table.base_ms(spec, phase, length)])


class TableColumns(CallColumns):
    """The sum of a look-up table."""

    kind: ClassVar[str] = "operator_table"

    def __init__(self, space: SearchSpace, table: OperatorTable) -> None:
        super().__init__(space, TableFigures(table))
        self.table = table

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"table": np.frombuffer(self.table.to_json().encode(), dtype=np.uint8).copy()}

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> TableColumns:
        return cls(space, OperatorTable.from_json(bytes(arrays["table"].astype(np.uint8)).decode()))


class RooflineFigures(CallFigures):
    """What is computed, what is moved, and how many operators run; or both of the first at a given intensity."""

    def __init__(self, intensity: float | None, batch: int) -> None:
        self.intensity = intensity
        self.roofline = Roofline(0.0 if intensity is None else intensity, batch=batch)
        self.names = ("computed", "moved", "operators") if intensity is None else ("emacs",)

    def of_operator(self, operator: Operator, phase: Phase, length: int) -> FloatArray:
        return self._of(operator_work(operator, phase, length), 1)

    def of_base(self, spec: LanguageModelSpec, phase: Phase, length: int) -> FloatArray:
        return self._of(base_work(spec), 0)

    def _of(self, work: Work, operators: int) -> FloatArray:
        if self.intensity is None:
            return np.array([self.roofline.computed(work), self.roofline.moved(work), operators])
        return np.array([self.roofline.emacs(work)])


class RooflineColumns(CallColumns):
    """A roofline's figures."""

    kind: ClassVar[str] = "roofline"

    def __init__(self, space: SearchSpace, intensity: float | None = None) -> None:
        super().__init__(space, RooflineFigures(intensity, space.workload.batch))
        self.intensity = intensity

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {"intensity": np.array(np.nan if self.intensity is None else self.intensity)}

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> RooflineColumns:
        intensity = float(arrays["intensity"])
        return cls(space, None if np.isnan(intensity) else intensity)


COLUMNS: Mapping[str, type[CallColumns]] = {kind.kind: kind for kind in (TableColumns, RooflineColumns)}


class CallLatencyModel(SavableLatencyModel):
    """A :class:`~gnomon.predictors.regression.Regression` on :class:`CallColumns`."""

    def __init__(self, columns: CallColumns, regression: Regression) -> None:
        self.space = columns.space
        self.columns = columns
        self.regression = regression

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        return self.regression.predict(self.columns(genotypes))

    def to_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """See :meth:`SavableLatencyModel.to_arrays`; names are kept as bytes."""
        r = self.regression
        return {
            "kind": np.frombuffer(self.columns.kind.encode(), dtype=np.uint8).copy(),
            "numbers": np.array([r.scale_ms, r.relative_noise, r.floor_ms]),
            **{f"c.{name}": array for name, array in self.columns.to_arrays().items()},
            **{f"r.{name}": array for name, array in r.regressor.to_arrays().items()},
        }

    @classmethod
    def from_arrays(cls, space: SearchSpace, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """See :meth:`SavableLatencyModel.from_arrays`."""
        try:
            kind = COLUMNS[bytes(arrays["kind"].astype(np.uint8)).decode()]
            columns = kind.from_arrays(space, _under("c.", arrays))
            regressor = REGRESSORS["line"].from_arrays(_under("r.", arrays))
            scale_ms, relative_noise, floor_ms = arrays["numbers"].tolist()
        except (KeyError, ValueError) as error:
            raise PredictorError(f"wrong arrays: {error}", field="arrays", value=sorted(arrays)) from error
        return cls(columns, Regression(regressor, scale_ms, relative_noise, floor_ms))


class CallPredictor(RegressionPredictor):
    """A line through :class:`CallColumns`, its weights not negative, of least squared relative error."""

    @property
    def kind(self) -> str:
        """Of the columns."""
        return self.columns.kind

    @cached_property
    @abstractmethod
    def columns(self) -> CallColumns:
        """What the line goes through."""

    def fit_columns(self, features: FloatArray, targets: FloatArray) -> Regressor:
        """See :meth:`RegressionPredictor.fit_columns`."""
        return fit_positive_line(features, targets)

    def adapt(  # type: ignore[override]  # another savable model, of columns that hold more than their kind's name
        self, genotypes: Genotypes, latencies_ms: FloatArray
    ) -> CallLatencyModel:
        """See :meth:`LatencyPredictor.adapt`."""
        genotypes, latencies = checked_measurements(self.space, genotypes, latencies_ms, self.minimum)
        return CallLatencyModel(self.columns, self.regress(self.columns(genotypes), latencies))


class OperatorTablePredictor(CallPredictor):
    """A look-up table of operators, and whole models to set its scale: ``a + b x sum``.

    The sum of the table is a prediction by itself (:meth:`unadapted`). Measured whole models correct what it cannot
    know: what operators cost each other, and a device whose clock is another than when the table was measured.

    Args:
        space: Of language models.
        table: That of a :class:`~gnomon.predictors.generation.TablePlan`, or the file that it was saved to (by
            ``gnomon measure operators``).

    Raises:
        PredictorError: If there is no table.
        SchemaError: If the file is none of a table.
    """

    def __init__(self, space: SearchSpace, table: OperatorTable | str | Path | None) -> None:
        super().__init__(space)
        if table is None:
            raise PredictorError(
                "needs a table", field="table", value=None, hint="Measure it: gnomon measure operators."
            )
        self.table = table if isinstance(table, OperatorTable) else OperatorTable.load(Path(table))

    @cached_property
    def columns(self) -> TableColumns:
        """The sum of the table."""
        return TableColumns(self.space, self.table)

    def unadapted(self) -> LatencyModel:
        """The sum of the table as it is, without any measurement of a whole model."""
        return TableSum(self.columns)


class TableSum(LatencyModel):
    """The sum of a look-up table.

    Args:
        columns: Of the table.
        relative_noise: Deviation as a share of the mean.
    """

    def __init__(self, columns: TableColumns, relative_noise: float = UNMEASURED_NOISE) -> None:
        self.columns = columns
        self.relative_noise = relative_noise

    def predict(self, genotypes: Genotypes) -> tuple[FloatArray, FloatArray]:
        """See :meth:`LatencyModel.predict`."""
        mean = self.columns.figures(genotypes)[:, 0]
        return mean, self.relative_noise * mean


class RooflinePredictor(CallPredictor):
    """A roofline with an overhead: constant, computing, moving and operators each at a price of the device's.

    Args:
        space: Of language models.
        intensity: Multiply-accumulates that cost as much as moving one number (Kinetics' E); latency is then a line
            through equivalent multiply-accumulates alone. None finds the prices of both, and of an operator's call,
            from the measurements.
    """

    def __init__(self, space: SearchSpace, *, intensity: float | None = None) -> None:
        super().__init__(space)
        if intensity is not None:
            Roofline(intensity)
        self.intensity = intensity

    @cached_property
    def columns(self) -> RooflineColumns:
        """What is computed and moved."""
        return RooflineColumns(self.space, self.intensity)


def _under(prefix: str, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
