"""Costs and features of ``small_cnn``, one table a stage.

What a stage adds depends on its own five decisions, on the filters before it, on the size of its map (the stem's
stride), on the activation, and on whether it is there and is the last: 19,200 combinations for
four stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from .cost_tables import CostTables, Group, Row
from .layer_specs import Activation, Size, Tally, reduced, tally_classifier, tally_layer, tally_stem
from .small_cnn_layers import ACTIVATIONS, GENES, KERNELS, OPS, SE_RATIOS, make_layer

if TYPE_CHECKING:
    from .small_cnn import SmallCNN

EMPTY = Row.of(Tally())


def make_tables(space: SmallCNN) -> CostTables:
    """Tables of a space; about a second."""
    index = space.algebra.index
    names = ["activation", "stem.filters", "stem.kernel", "stem.stride"]
    parts = [(names, _stem_rows(space))]
    for stage in range(space.stages):
        before = "stem.filters" if stage == 0 else f"stage{stage}.filters"
        own = [f"stage{stage + 1}.{gene}" for gene in GENES]
        parts.append((["activation", "stem.stride", "stages", before, *own], _stage_rows(space, stage)))
    groups = []
    for names, rows in parts:
        columns = tuple(index[name] for name in names)
        groups.append(Group(columns, tuple(len(space.decisions[column].choices) for column in columns), tuple(rows)))
    return CostTables.make(EMPTY, groups)


def _stem_rows(space: SmallCNN) -> Iterator[Row]:
    for activation, filters, kernel, stride in product(ACTIVATIONS, space.stem_filters, KERNELS, space.stem_strides):
        tally = Tally()
        tally_stem(space.stem(filters, kernel, stride, activation), space.size, tally)
        yield Row.of(tally)


def _stage_rows(space: SmallCNN, stage: int) -> Iterator[Row]:
    """An entry for every combination, in the order of the codes; nothing where the network ends before."""
    sources = space.stage_filters[stage - 1] if stage else space.stem_filters
    own = list(product(OPS, KERNELS, SE_RATIOS, space.stage_filters[stage], space.stage_depths))
    for activation, stem_stride, stages, source in product(
        ACTIVATIONS, space.stem_strides, range(1, space.stages + 1), sources
    ):
        if stages <= stage:
            yield from (EMPTY for _ in own)
            continue
        size, stride = space.geometry(stem_stride)[stage]
        after = reduced(size, stride)
        for op, kernel, se, filters, layers in own:
            row = _layer_row(op, kernel, se, source, filters, stride, activation, size)
            row += _layer_row(op, kernel, se, filters, filters, 1, activation, after).times(layers - 1)
            yield row + _tail_row(filters, space.classes, after) if stages == stage + 1 else row


@lru_cache(maxsize=50_000)
def _layer_row(
    op: str, kernel: int, se: float, source: int, filters: int, stride: int, activation: Activation, size: Size
) -> Row:
    tally = Tally()
    tally_layer(make_layer(op, kernel, se, source, filters, stride, activation), size, tally)
    return Row.of(tally)


@lru_cache(maxsize=1_000)
def _tail_row(channels: int, classes: int, size: Size) -> Row:
    tally = Tally()
    tally_classifier(None, channels, classes, size, tally)
    return Row.of(tally)
