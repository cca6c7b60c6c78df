"""Figures of language models for populations of a space of them.

Shapes: N architectures, D decisions, F figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from ...search_spaces import Genotypes, SearchSpace, Workload
from ...search_spaces.hybrid_slm.specs import LanguageModelSpec
from .work import Phase, checked_phase

FloatArray = npt.NDArray[np.float64]
CallFigures: TypeAlias = Callable[[LanguageModelSpec, Phase, int], FloatArray]
"""Figures ``(F,)`` of one call: a prefill of so many tokens, or the step after as many."""


class LanguageModels(Protocol):
    """What a space of language models has beyond a :class:`~gnomon.search_spaces.SearchSpace`."""

    def spec_of(self, config: Mapping[str, Any]) -> LanguageModelSpec:
        """The language model that a config is."""


def specs_of(space: SearchSpace, genotypes: Genotypes) -> list[LanguageModelSpec]:
    """The language model that each row is ``(N,)``.

    Raises:
        PredictorError: If the space has no language models.
    """
    if not hasattr(space, "spec_of"):
        raise PredictorError("not a space of language models", field="space", value=space.name)
    models = cast(LanguageModels, space)
    return [models.spec_of(space.config(row)) for row in genotypes]


def plan_figures(spec: LanguageModelSpec, workload: Workload, of_call: CallFigures) -> FloatArray:
    """Figures ``(F,)`` of all that a workload runs: a prefill, a step, or a prefill and its steps.

    Of steps the one in the middle stands for all: their cost is linear in what came before.

    Raises:
        PredictorError: If the workload does not say how long anything is.
    """
    if workload.phase:
        phase = checked_phase(workload.phase)
        return of_call(spec, phase, _length(workload, "context" if phase == "step" else "source_length"))
    prompt, steps = _length(workload, "source_length"), _length(workload, "generated_length")
    return of_call(spec, "prefill", prompt) + steps * of_call(spec, "step", prompt + (steps - 1) // 2)


def population_figures(space: SearchSpace, genotypes: Genotypes, of_call: CallFigures) -> FloatArray:
    """:func:`plan_figures` of each row under the space's workload ``(N, F)``; equal rows are worked out once."""
    rows, where = np.unique(genotypes, axis=0, return_inverse=True)
    if not len(rows):
        width = len(
            plan_figures(specs_of(space, space.sample(1, np.random.default_rng(0)))[0], space.workload, of_call)
        )
        return np.zeros((0, width))
    figures = np.stack([plan_figures(spec, space.workload, of_call) for spec in specs_of(space, rows)])
    return np.asarray(figures[where.ravel()], dtype=np.float64)


def _length(workload: Workload, name: str) -> int:
    value = getattr(workload, name)
    if value is None:
        raise PredictorError("how many tokens?", field=f"workload.{name}", value=None, allowed="a number of tokens")
    return int(value)
