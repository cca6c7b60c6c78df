"""Costs and features of networks that differ in their mixers only: sums of one look-up a decision.

Shapes: N architectures, D decisions, F features, C columns of sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ..additive import AdditiveEncoding, FoldedTables
from ..algebra import Genotypes
from ..costs import Costs
from ..decision import Decision
from .specs import FFN, LanguageModelSpec, Operator

FloatArray = npt.NDArray[np.float64]

FLOAT_BYTES = 4
SUMS = ("parameters", "macs", "traffic", "state")


class ReplacementFigures:
    """Costs and features of a decode step.

    Features: of each operator that may stand somewhere, how many there are (``count.<name>``); ``macs`` and
    ``traffic`` (elements of states that are read and written) of all, relative to the parent's; then which choice
    each decision takes (``decision=choice``). The first are what latency depends on, the last what quality does.

    Args:
        parent: All kept.
        decisions: The space's.
        options: By decision, the operator of each choice, the parent's first.
        context: Tokens before the step, meta tokens not counted.
    """

    def __init__(
        self,
        parent: LanguageModelSpec,
        decisions: Sequence[Decision],
        options: Mapping[str, Sequence[Operator]],
        context: int,
    ) -> None:
        self._parent, self._past = parent, context + parent.meta_tokens
        kept = np.sum([self._work(operator) for operator in parent.operators], axis=0)
        tables, names = self._tables(decisions, options)
        base = np.zeros(tables[0].shape[1])
        base[: len(SUMS)] = kept - sum(table[0, : len(SUMS)] for table in tables)
        units = np.ones(len(base))
        units[: len(SUMS)] = np.maximum(kept, 1.0)
        self._sums = _folded(decisions, [table[:, : len(SUMS)] for table in tables], base[: len(SUMS)])
        shown = [
            column
            for column, name in enumerate(names)
            if name in ("macs", "traffic") or column >= len(SUMS)
            if any(np.ptp(table[:, column]) > 0 for table in tables)
        ]
        self.names: tuple[str, ...] = tuple(names[column] for column in shown)
        self.units: FloatArray = units[shown]
        scaled = [table[:, shown] / units[shown] for table in tables]
        self.encoding = _encoding(decisions, scaled, base[shown] / units[shown])

    def costs(self, genotypes: Genotypes) -> Costs:
        """Of one step at the context, for one sequence; columns mean what they do in the spaces of hybrids: ``cio``
        counts elements of states and of the hidden state that are read and written, ``peak_activation_bytes`` is of
        states, logits and hidden state."""
        parent = self._parent
        sums = dict(zip(SUMS, self._sums.sum(genotypes).T, strict=True))
        head, hidden = parent.vocabulary * parent.width, parent.width * len(parent.operators)
        others = parent.width * (1 + parent.meta_tokens + bool(parent.exit_after))
        others += (parent.width + 1) * len(parent.operators) if parent.skips else 0
        return Costs(
            parameters=sums["parameters"] + head * (1 if parent.tied else 2) + hidden + others,
            macs=sums["macs"] + head,
            cio=sums["traffic"] + 2 * hidden,
            peak_activation_bytes=FLOAT_BYTES * (sums["state"] + parent.vocabulary + 2 * parent.width),
        )

    def _tables(
        self, decisions: Sequence[Decision], options: Mapping[str, Sequence[Operator]]
    ) -> tuple[list[FloatArray], list[str]]:
        """By decision, a row of every choice: sums, counts of operators, choices; and the columns' names."""
        operators = list(dict.fromkeys(operator for offered in options.values() for operator in offered))
        names = [*SUMS, *_count_names(operators)]
        names += [f"{decision.name}={choice}" for decision in decisions for choice in decision.choices]
        tables, first = [], len(SUMS) + len(operators)
        for decision in decisions:
            offered = options[decision.name]
            table = np.zeros((len(offered), len(names)))
            for row, operator in enumerate(offered):
                table[row, : len(SUMS)] = self._work(operator)
                table[row, len(SUMS) + operators.index(operator)] = 1.0
                table[row, first + row] = 1.0
            first += len(offered)
            tables.append(table)
        return tables, names

    def _work(self, operator: Operator) -> FloatArray:
        """Of one step ``(len(SUMS),)``."""
        from .ffn import SwiGLU
        from .mixers import mixer_class

        if operator.kind == FFN:
            work = SwiGLU.work(operator.sizes.width, operator.ffn_width)
        else:
            work = mixer_class(operator.kind).step_work(operator.sizes, self._past)
        return np.array([work.parameters, work.macs, work.state_traffic, work.state_elements], dtype=np.float64)


def _count_names(operators: Sequence[Operator]) -> list[str]:
    """By kind, numbered where operators of one kind differ in size."""
    names: list[str] = []
    for operator in operators:
        kind = operator.kind.rpartition(".")[2]
        same = sum(name == f"count.{kind}" or name.startswith(f"count.{kind}#") for name in names)
        names.append(f"count.{kind}#{same + 1}" if same else f"count.{kind}")
    return names


def _encoding(decisions: Sequence[Decision], tables: Sequence[FloatArray], bias: FloatArray) -> AdditiveEncoding:
    return AdditiveEncoding(
        tuple((column,) for column in range(len(decisions))),
        tuple((len(decision.choices),) for decision in decisions),
        tuple(table.astype(np.float32) for table in tables),
        bias.astype(np.float32),
    )


def _folded(decisions: Sequence[Decision], tables: Sequence[FloatArray], bias: FloatArray) -> FoldedTables:
    """Sums in full precision."""
    return FoldedTables(_encoding(decisions, tables, bias), tuple(tables), bias)
