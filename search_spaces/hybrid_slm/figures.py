"""Costs and features of language models: sums over operators of what a decode step does.

A part of a network (a stage, a layer) has some operators of each kind, whose work depends on few decisions. Tables list
a part's sums for all combinations of the decisions that matter to it; where that would be too many, sums are made anew
for each population.

Shapes: N architectures, K kinds of operators (the feed-forward last), F features, C columns of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..additive import AdditiveEncoding
from ..algebra import Genotypes
from ..costs import Costs
from ..decision import Decision
from .options import Options
from .specs import FFN
from .work import AXES, WORK, FloatArray

IndexArray = npt.NDArray[np.int64]
Genes = Mapping[str, IndexArray]
"""Choice of each option and decision by name ``(N,)``; zeros where an option is constant."""

FLOAT_BYTES = 4
MOST_ROWS = 400_000
"""Of a part's table; beyond that there is no additive encoding."""
TOTALS = ("head", "embedding", "hidden", "state")
"""Columns after those of the kinds: weights of the output layer, of an embedding of its own, elements of the hidden
state that branches read, elements of all states."""
KIND_COLUMNS = ("count", "weights", "macs", "traffic")


@dataclass(frozen=True)
class Part:
    """Operators that few decisions decide together.

    Args:
        decisions: Names that :attr:`counts` and the operators' sizes depend on.
        counts: How many operators of each kind there are ``(N, K)``.
        own: Names of the part's own decisions for options that it chooses itself, for example
            ``{"kv_heads": "layer1.kv_heads"}``.
    """

    decisions: tuple[str, ...]
    counts: Callable[[Genes], FloatArray]
    own: Mapping[str, str]


class Figures:
    """Costs and features of a space.

    Features, for each kind of operator: ``count.<kind>``; ``weights.<kind>``, which a step reads once;
    ``macs.<kind>``; ``traffic.<kind>``, elements of states that a step reads and writes; then :data:`TOTALS`. Each
    is relative to its mean over the tables. Columns that never vary, or are another one's multiple, are left out.

    Args:
        options: The space's.
        kinds: Mixers.
        vocabulary: Number of tokens.
        table: See :func:`~gnomon.search_spaces.hybrid_slm.work.work_table`.
        decisions: The space's.
        parts: That make up a network.
    """

    def __init__(
        self,
        options: Options,
        kinds: Sequence[str],
        vocabulary: int,
        table: FloatArray,
        decisions: Sequence[Decision],
        parts: Sequence[Part],
    ) -> None:
        self._options, self._vocabulary, self._table = options, vocabulary, table
        self._index = {decision.name: column for column, decision in enumerate(decisions)}
        self._radix = {decision.name: len(decision.choices) for decision in decisions}
        self._choices = options.choices()
        self._parts = (Part((), lambda genes: np.zeros((1, len(kinds) + 1)), {}), *parts)
        operators = (*(kind.rpartition(".")[2] for kind in kinds), FFN)
        self._columns = (*(f"{column}.{kind}" for column in KIND_COLUMNS for kind in operators), *TOTALS)
        tables = [self._sums(part, self._sampled(part)) for part in self._parts]
        mean = np.sum([rows.mean(axis=0) for rows in tables], axis=0)
        self._shown = _telling(tables, mean)
        self.units: FloatArray = np.where(mean > 0, mean, 1.0)[self._shown]

    # ---- What the space shows --------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F features."""
        return tuple(self._columns[column] for column in self._shown)

    def features(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Columns ``(N, F)``."""
        if self.encoding is not None:
            return self.encoding.encode(genotypes)
        return (self._total(genotypes)[:, self._shown] / self.units).astype(np.float32)

    @cached_property
    def encoding(self) -> AdditiveEncoding | None:
        """:meth:`features` as sums of tables; None if one would have too many rows."""
        groups = [self._group(part) for part in self._parts]
        radices = [tuple(self._radix[name] for name in group) for group in groups]
        if any(np.prod(radix, dtype=float) > MOST_ROWS for radix in radices):
            return None
        tables = []
        for part, group, radix in zip(self._parts, groups, radices, strict=True):
            digits = np.unravel_index(np.arange(int(np.prod(radix))), radix) if radix else ()
            rows = self._sums(part, dict(zip(group, (np.asarray(d) for d in digits), strict=True)))
            tables.append((rows[:, self._shown] / self.units).astype(np.float32))
        columns = tuple(tuple(self._index[name] for name in group) for group in groups)
        return AdditiveEncoding(columns, tuple(radices), tuple(tables), np.zeros(len(self.units), np.float32))

    def costs(self, genotypes: Genotypes) -> Costs:
        """Of one decode step at the space's context, for one sequence.

        ``parameters`` are all of them. ``macs`` are those of the step, the output layer included. ``cio`` counts the
        elements of states that the step reads and writes, and of the hidden state that branches read and write.
        ``peak_activation_bytes`` is of the states, the logits and the hidden state.
        """
        sums = self._total(genotypes)
        of = {name: sums[:, column] for column, name in enumerate(self._columns)}
        per_kind = {
            name: sums[:, [c.startswith(f"{name}.") for c in self._columns]].sum(axis=1) for name in KIND_COLUMNS
        }
        width = of["head"] / self._vocabulary
        values = self._values(self._genes(genotypes))
        skips, meta, exits = values["skips"], values["meta_tokens"], values["exit_after"] > 0
        operators = per_kind["count"]
        others = width * (1 + exits + meta) + of["hidden"] * (1 + skips) + operators * skips
        return Costs(
            parameters=per_kind["weights"] + of["head"] + of["embedding"] + others,
            macs=per_kind["macs"] + of["head"],
            cio=per_kind["traffic"] + 2 * of["hidden"],
            peak_activation_bytes=FLOAT_BYTES * (of["state"] + self._vocabulary + 2 * width),
        )

    def operators(self, genotypes: Genotypes) -> FloatArray:
        """Number of operators ``(N,)``."""
        genes = self._genes(genotypes)
        counts = [np.broadcast_to(part.counts(genes).sum(axis=1), len(genotypes)) for part in self._parts]
        return np.asarray(np.sum(counts, axis=0))

    def operator_sums(self, genotypes: Genotypes, figures: FloatArray) -> FloatArray:
        """Sums over the operators of each network ``(N, G)`` of any figures of operators, listed for all kinds and
        sizes ``(K, *AXES, G)`` as in :func:`~gnomon.search_spaces.hybrid_slm.work.work_table`."""
        genes = self._genes(genotypes)
        total = np.zeros((len(genotypes), figures.shape[-1]))
        for part in self._parts:
            counts = np.broadcast_to(part.counts(genes), (len(genotypes), len(figures)))
            rows, kinds = np.nonzero(counts)
            sizes = [genes[part.own.get(name, name)][rows] for name in AXES]
            np.add.at(total, rows, figures[(kinds, *sizes)] * counts[rows, kinds, None])
        return total

    # ---- Sums ------------------------------------------------------------------------------------

    def _total(self, genotypes: Genotypes) -> FloatArray:
        genes = self._genes(genotypes)
        return np.asarray(np.sum([self._sums(part, genes) for part in self._parts], axis=0))

    def _sums(self, part: Part, genes: Genes) -> FloatArray:
        """Sums of a part ``(N, C)``."""
        rows = max((len(values) for values in genes.values()), default=1)
        genes = {name: genes.get(name, np.zeros(rows, dtype=np.int64)) for name in (*self._choices, *self._index)}
        constant = np.zeros(rows, dtype=np.int64)
        sizes = [genes.get(part.own.get(name, name), constant) for name in AXES]
        counts = np.broadcast_to(part.counts(genes), (rows, len(self._table)))
        cells = np.ravel_multi_index(tuple(sizes), self._table.shape[1:-1])
        work = self._table.reshape(len(self._table), -1, len(WORK))[:, cells].transpose(1, 0, 2) * counts[:, :, None]
        of = dict(zip(WORK, work.transpose(2, 0, 1), strict=True))
        width = np.array(self._choices["width"], dtype=np.float64)[genes["width"]]
        tied = np.array(self._choices["tied"], dtype=np.float64)[genes["tied"]]
        is_base = not part.decisions
        head = width * self._vocabulary if is_base else np.zeros(rows)
        totals = [head, head * (1 - tied), width * counts.sum(axis=1), of["state"].sum(axis=1)]
        return np.concatenate([counts, of["parameters"], of["macs"], of["traffic"], np.stack(totals, axis=1)], axis=1)

    def _group(self, part: Part) -> tuple[str, ...]:
        """Decisions that a part's sums depend on."""
        options = ("width", "tied") if not part.decisions else tuple(part.own.get(name, name) for name in AXES)
        return tuple(name for name in dict.fromkeys((*options, *part.decisions)) if name in self._index)

    def _sampled(self, part: Part) -> Genes:
        """Combinations of a part's decisions: all, or some of very many."""
        group = self._group(part)
        radix = tuple(self._radix[name] for name in group)
        total = int(np.prod(radix, dtype=np.int64))
        codes = np.arange(total) if total <= MOST_ROWS else np.random.default_rng(0).integers(0, total, 20_000)
        return dict(zip(group, np.unravel_index(codes, radix), strict=True)) if group else {}

    def _genes(self, genotypes: Genotypes) -> dict[str, IndexArray]:
        """Choices by name, constants included."""
        zeros = np.zeros(len(genotypes), dtype=np.int64)
        known = {name: genotypes[:, column].astype(np.int64) for name, column in self._index.items()}
        return {**dict.fromkeys(self._choices, zeros), **known}

    def _values(self, genes: Genes) -> dict[str, FloatArray]:
        return {name: np.array(choices, dtype=np.float64)[genes[name]] for name, choices in self._choices.items()}


def _telling(tables: Sequence[FloatArray], mean: FloatArray) -> list[int]:
    """Columns that vary in some table, each multiple of another once."""
    shown: list[int] = []
    for column in range(len(mean)):
        if not mean[column] > 0 or all(np.ptp(rows[:, column]) == 0 for rows in tables):
            continue
        relative = [rows[:, column] / mean[column] for rows in tables]
        others = ([rows[:, other] / mean[other] for rows in tables] for other in shown)
        if not any(all(np.allclose(a, b, rtol=1e-9) for a, b in zip(relative, other, strict=True)) for other in others):
            shown.append(column)
    return shown
