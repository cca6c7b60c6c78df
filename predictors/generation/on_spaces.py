"""Figures of calls for populations of a space of language models, as sums over operators.

Shapes: N architectures, D decisions, F figures, K kinds of operators, W widths, M numbers of meta tokens.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from ...errors import PredictorError
from ...search_spaces import Genotypes, SearchSpace, Workload
from ...search_spaces.hybrid_slm.base import LanguageModelSpace
from ...search_spaces.hybrid_slm.options import ffn_width
from ...search_spaces.hybrid_slm.sizes import MixerSizes
from ...search_spaces.hybrid_slm.specs import FFN, LanguageModelSpec, Operator
from ...search_spaces.hybrid_slm.work import AXES
from .work import Phase, checked_phase

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TimedCall:
    """A call of a workload: a prefill of ``length`` tokens, or the step after as many, so often."""

    phase: Phase
    length: int
    times: int = 1


def calls_of(workload: Workload) -> list[TimedCall]:
    """All that a workload runs: a prefill, a step, or a prefill and its steps.

    Of these steps the one in the middle stands for all, as their cost is linear in what came before.

    Raises:
        PredictorError: If the workload does not say how long anything is.
    """
    if workload.phase:
        phase = checked_phase(workload.phase)
        return [TimedCall(phase, _tokens(workload, "context" if phase == "step" else "source_length"))]
    prompt, steps = _tokens(workload, "source_length"), _tokens(workload, "generated_length")
    return [TimedCall("prefill", prompt), TimedCall("step", prompt + (steps - 1) // 2, steps)]


class CallFigures(ABC):
    """Figures of one call that are sums over a model's operators. Lengths count meta tokens."""

    names: tuple[str, ...]
    """Of the figures."""

    @abstractmethod
    def of_operator(self, operator: Operator, phase: Phase, length: int) -> FloatArray:
        """Of one operator ``(F,)``.

        Raises:
            PredictorError: If that is not known.
        """

    @abstractmethod
    def of_base(self, spec: LanguageModelSpec, phase: Phase, length: int) -> FloatArray:
        """Of what a model has beside operators ``(F,)``.

        Raises:
            PredictorError: If that is not known.
        """

    def of_model(self, spec: LanguageModelSpec, workload: Workload) -> FloatArray:
        """Of all that a workload runs ``(F,)``.

        Raises:
            PredictorError: If a part is not known.
        """
        total = np.zeros(len(self.names))
        for call in calls_of(workload):
            length = call.length + spec.meta_tokens
            total += call.times * self.of_base(spec, call.phase, length)
            for operator in spec.operators:
                total += call.times * self.of_operator(operator, call.phase, length)
        return total


class PopulationFigures:
    """:meth:`CallFigures.of_model` of whole populations: tables over a space's options, made once.

    Args:
        space: Of language models.
        figures: Of calls.

    Raises:
        PredictorError: If the space has no language models.
    """

    def __init__(self, space: SearchSpace, figures: CallFigures) -> None:
        if not isinstance(space, LanguageModelSpace):
            raise PredictorError("not a space of language models", field="space", value=space.name)
        self._space, self._figures = space, figures
        calls_of(space.workload)
        self._choices = space.options.choices()
        self._operators = self._operator_table()
        self._bases = self._base_table()

    def __call__(self, genotypes: Genotypes) -> FloatArray:
        """``(N, F)``.

        Raises:
            PredictorError: If a part of one of them is not known.
        """
        bases = self._bases[self._index(genotypes, "width"), self._index(genotypes, "meta_tokens")]
        total = bases + self._space.figures.operator_sums(genotypes, self._operators)
        unknown = np.isnan(total).any(axis=1)
        if unknown.any():
            row = genotypes[int(np.argmax(unknown))]
            self._figures.of_model(self._space.spec_of(self._space.config(row)), self._space.workload)
            raise PredictorError("not known", field="genotypes", value=self._space.keys(row[None])[0])
        return np.asarray(total)

    def _index(self, genotypes: Genotypes, name: str) -> npt.NDArray[np.intp]:
        """Number of the choice of an option ``(N,)``."""
        return np.searchsorted(np.array(self._choices[name]), self._space.values(genotypes, name))

    def _operator_table(self) -> FloatArray:
        """``(K, *AXES, F)``; NaN where something is not known, or heads cannot share keys."""
        axes = [self._choices[name] for name in AXES]
        kinds = (*self._space.mixers, FFN)
        table = np.full((len(kinds), *map(len, axes), len(self._figures.names)), np.nan)
        for cell in np.ndindex(table.shape[:-1]):
            of = {name: float(axis[index]) for name, axis, index in zip(AXES, axes, cell[1:], strict=True)}
            operator = _operator(kinds[cell[0]], of)
            if operator is not None:
                table[cell] = self._known(partial(self._figures.of_operator, operator), int(of["meta_tokens"]))
        return table

    def _base_table(self) -> FloatArray:
        """``(W, M, F)``; NaN where something is not known."""
        widths, metas = self._choices["width"], self._choices["meta_tokens"]
        table = np.full((len(widths), len(metas), len(self._figures.names)), np.nan)
        for i, j in np.ndindex(table.shape[:-1]):
            spec = LanguageModelSpec(self._space.vocabulary, int(widths[i]), (), meta_tokens=int(metas[j]))
            table[i, j] = self._known(partial(self._figures.of_base, spec), spec.meta_tokens)
        return table

    def _known(self, of_call: Callable[[Phase, int], FloatArray], meta_tokens: int) -> FloatArray:
        """Sum over calls ``(F,)``; NaN where one is not known."""
        try:
            calls = calls_of(self._space.workload)
            figures = [call.times * of_call(call.phase, call.length + meta_tokens) for call in calls]
            return np.asarray(np.sum(figures, axis=0), dtype=np.float64)
        except PredictorError:
            return np.full(len(self._figures.names), np.nan)


def _operator(kind: str, of: Mapping[str, float]) -> Operator | None:
    """An operator of options; None if its heads cannot share keys."""
    width, head_size, kv_heads = int(of["width"]), int(of["head_size"]), int(of["kv_heads"])
    heads = width // head_size
    sizes = MixerSizes(width, heads, kv_heads, head_size, int(of["window"]))
    if kind == FFN:
        return Operator(FFN, sizes, ffn_width(width, of["ffn_ratio"]))
    return None if heads % kv_heads else Operator(kind, sizes)


def _tokens(workload: Workload, name: str) -> int:
    value = getattr(workload, name)
    if value is None:
        raise PredictorError("how many tokens?", field=f"workload.{name}", value=None, allowed="a number of tokens")
    return int(value)
