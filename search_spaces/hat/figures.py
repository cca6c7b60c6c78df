"""Costs and features of transformers, from look-up tables of their layers.

What a network does is a sum over its layers, and a layer's share depends on few decisions: a table lists all
combinations of those, and costs and features of a population are sums of gathered rows.

Shapes: N architectures, F features, G groups of decisions, K combinations of a group, C kinds of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..additive import AdditiveEncoding, FoldedTables
from ..algebra import Genotypes
from ..costs import Costs
from ..decision import Decision
from ..workload import Workload
from . import work
from .sizes import Sizes
from .specs import Vocabulary
from .work import FloatArray, Sums

FLOAT_BYTES = 4


@dataclass(frozen=True)
class Group:
    """Decisions that decide a layer's share together, in any order, and that share of each combination."""

    names: tuple[str, ...]
    sums: Callable[[Mapping[str, FloatArray]], Sums]


class Figures:
    """Costs and features of a transformer space.

    Features are sums of work over layers (:data:`~gnomon.search_spaces.hat.work.FEATURES`), each relative to
    its mean over the space and apart for reading the source (``read_``) and for the steps (``step_``), and
    then which choice each active decision takes, layer by layer (``decision=choice``).

    Args:
        sizes, vocabulary, decisions: The space's.
        workload: Lengths and beams at which networks run.
    """

    def __init__(self, sizes: Sizes, vocabulary: Vocabulary, decisions: Sequence[Decision], workload: Workload) -> None:
        self.lengths = work.Lengths.of(workload)
        self._sizes, self._vocabulary = sizes, vocabulary
        self._decisions = tuple(decisions)
        self._index = {decision.name: column for column, decision in enumerate(decisions)}
        self._groups = self._make_groups()
        tables = [self._table(group) for group in self._groups]
        mean = np.sum([table.mean(axis=0) for table in tables], axis=0)
        varies = np.any([np.ptp(table, axis=0) > 0 for table in tables], axis=0)
        self._shown = [column for column, name in enumerate(work.SUMS) if name in work.FEATURES and varies[column]]
        self.units: npt.NDArray[np.float64] = np.concatenate([mean[self._shown], np.ones(self._choice_count)])
        self._sums = FoldedTables(self.encoding_of(tables), tuple(tables), np.zeros(len(work.SUMS)))

    # ---- What the space shows ----------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the F columns of :meth:`features`."""
        choices = (f"{decision.name}={choice}" for decision in self._decisions for choice in decision.choices)
        return (*(work.SUMS[column] for column in self._shown), *choices)

    @property
    def encoding(self) -> AdditiveEncoding:
        """:meth:`features` as sums of tables."""
        return self._sums.encoding

    def features(self, genotypes: Genotypes) -> npt.NDArray[np.float32]:
        """Columns ``(N, F)``."""
        return self.encoding.encode(genotypes)

    def costs(self, genotypes: Genotypes) -> Costs:
        """Of the whole plan: the source read once, all steps of all beams.

        ``cio`` counts elements that matrix products read and write. ``peak_activation_bytes`` is of caches and
        what a layer holds, the attention's scores included.
        """
        sums = dict(zip(work.SUMS, self._sums.sum(genotypes).T, strict=True))
        peak = self._peak_elements(genotypes, sums["caches"])
        return Costs(sums["parameters"], sums["macs"], sums["cio"], peak * FLOAT_BYTES)

    def parameters_without_tables(self, genotypes: Genotypes) -> FloatArray:
        """Parameters ``(N,)`` without embeddings and output layer, as HAT counts them."""
        sums = self._sums.sum(genotypes)
        return sums[:, work.SUMS.index("parameters")] - sums[:, work.SUMS.index("table_elements")]

    # ---- Tables ------------------------------------------------------------------------------------

    def encoding_of(self, tables: Sequence[FloatArray]) -> AdditiveEncoding:
        """Features as sums: the tables' columns that are shown, then choices."""
        columns = [tuple(self._index[name] for name in group.names) for group in self._groups]
        radices = [tuple(len(self._decisions[c].choices) for c in group) for group in columns]
        relative = [
            np.concatenate([table[:, self._shown] / self.units[: len(self._shown)], chosen], axis=1)
            for table, chosen in zip(tables, self._choice_tables, strict=True)
        ]
        bias = np.zeros(len(self.units), dtype=np.float32)
        return AdditiveEncoding(tuple(columns), tuple(radices), tuple(t.astype(np.float32) for t in relative), bias)

    def _make_groups(self) -> list[Group]:
        make = work.Work(self._sizes.qkv_width, self._vocabulary, self.lengths, bool(self._sizes.encoder_layers))
        sides = ("encoder", "decoder") if self._sizes.encoder_layers else ("decoder",)
        groups = [Group(tuple(f"{side}.{gene}" for side in sides for gene in ("width", "layers")), make.base)]
        for side in sides:
            reads_encoder = ("encoder.width",) if side == "decoder" and len(sides) == 2 else ()
            shared = (f"{side}.width", f"{side}.layers", *reads_encoder)
            depths = self._sizes.encoder_layers if side == "encoder" else self._sizes.decoder_layers
            for layer in range(1, depths[-1] + 1):
                prefix = f"{side}.layer{layer}."
                own = tuple(name for name in self._index if name.startswith(prefix))
                groups.append(
                    Group(
                        (*shared, *own),
                        _of_layer(make.encoder_layer if side == "encoder" else make.decoder_layer, side, layer),
                    )
                )
        return groups

    def _table(self, group: Group) -> FloatArray:
        """Sums of each combination of a group's choices ``(K, C)``."""
        values = {name: self._values(name)[genes] for name, genes in self._combinations(group).items()}
        sums = group.sums(values)
        length = len(next(iter(values.values())))
        return np.stack([np.broadcast_to(sums.get(name, 0.0), length) for name in work.SUMS], axis=1).astype(np.float64)

    @cached_property
    def _choice_tables(self) -> list[FloatArray]:
        """Which choice each active decision takes, in the table of the group that reads it ``(K, choices)``."""
        tables = []
        placed: set[str] = set()
        for group in self._groups:
            genes = self._combinations(group)
            table = np.zeros((len(next(iter(genes.values()))), self._choice_count))
            for name in [n for n in group.names if n not in placed]:
                decision = self._decisions[self._index[name]]
                active = np.ones(len(table), dtype=bool)
                for parent, allowed in decision.active_when.items():
                    active &= np.isin(self._values(parent)[genes[parent]], np.array(allowed, dtype=np.float64))
                for choice in range(len(decision.choices)):
                    table[:, self._first_choice(name) + choice] = active & (genes[name] == choice)
                placed.add(name)
            tables.append(table)
        return tables

    def _combinations(self, group: Group) -> dict[str, npt.NDArray[np.int64]]:
        radices = [len(self._decisions[self._index[name]].choices) for name in group.names]
        digits = np.unravel_index(np.arange(int(np.prod(radices))), radices)
        return dict(zip(group.names, digits, strict=True))

    def _values(self, name: str) -> FloatArray:
        return np.array(self._decisions[self._index[name]].choices, dtype=np.float64)

    @property
    def _choice_count(self) -> int:
        return sum(len(decision.choices) for decision in self._decisions)

    def _first_choice(self, name: str) -> int:
        return sum(len(decision.choices) for decision in self._decisions[: self._index[name]])

    # ---- Memory ------------------------------------------------------------------------------------

    def _peak_elements(self, genotypes: Genotypes, caches: FloatArray) -> FloatArray:
        """The larger of what reading and what the last step holds ``(N,)``: caches, the running sums of tokens
        and the widest pair of results within a layer."""
        lengths = self.lengths
        of = {name: self._values(name)[genotypes[:, column]] for name, column in self._index.items()}
        decoder = of["decoder.width"]
        reader = of.get("encoder.width", decoder)
        side = "encoder" if self._sizes.encoder_layers else "decoder"
        heads = "heads" if side == "encoder" else "self_heads"
        read = self._within(of, side, lengths.source * reader, lengths.source, lengths.source, heads)
        steps = lengths.generated + (0 if self._sizes.encoder_layers else lengths.source)
        step = self._within(of, "decoder", lengths.beams * decoder, lengths.beams, steps, "self_heads")
        step = np.maximum(step, lengths.beams * (decoder + self._vocabulary.target))
        return np.asarray(caches + np.maximum(read, step))

    def _within(
        self, of: Mapping[str, FloatArray], side: str, tokens: FloatArray, rows: float, seen: float, heads: str
    ) -> FloatArray:
        """Elements alive within a layer of ``rows`` tokens that see ``seen`` tokens each, the largest layer's."""
        qkv = self._sizes.qkv_width
        peak: FloatArray = np.zeros_like(tokens)
        for layer in range(1, int(self._values(f"{side}.layers")[-1]) + 1):
            exists = of[f"{side}.layers"] >= layer
            attention = 3 * qkv * rows + 2 * rows * seen * of[f"{side}.layer{layer}.{heads}"]
            held = np.maximum(attention, rows * of[f"{side}.layer{layer}.ffn"]) + 2 * tokens
            peak = np.maximum(peak, np.where(exists, held, 0.0))
        return peak


def _of_layer(
    sums: Callable[[Mapping[str, FloatArray]], Sums], side: str, layer: int
) -> Callable[[Mapping[str, FloatArray]], Sums]:
    """A layer's sums, 0 where the network is less deep; its own decisions without their prefix."""
    prefix = f"{side}.layer{layer}."

    def masked(values: Mapping[str, FloatArray]) -> Sums:
        exists = (values[f"{side}.layers"] >= layer).astype(np.float64)
        named = {name.removeprefix(prefix): value for name, value in values.items()}
        return {name: value * exists for name, value in sums(named).items()}

    return masked
