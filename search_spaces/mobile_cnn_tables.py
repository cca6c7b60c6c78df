"""Costs and features of ``mobile_cnn``, one table per block.

Everything that a block adds depends on its own six genes and on the filters of the block before
it: at most 4·2·2·3·3·3·3 = 1,296 combinations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product

from .cost_tables import CostTables, Group, Row
from .decision import Decision
from .layer_specs import Size, Tally, reduced, tally_classifier, tally_layer, tally_stem
from .mobile_cnn_blocks import KERNELS, OPS, SE_RATIOS, SKIPS, make_layer
from .mobile_cnn_skeleton import Skeleton

GENES = ("op", "kernel", "se", "skip", "filters", "layers")
"""Decisions of a block, in the order of its columns."""


def make_tables(skeleton: Skeleton, decisions: Sequence[Decision]) -> CostTables:
    """Tables of a space; a fraction of a second for seven blocks."""
    stem = Tally()
    tally_stem(skeleton.stem, skeleton.size, stem)
    groups = []
    for block in range(len(skeleton.blocks)):
        first = block * len(GENES)
        columns = tuple(range(first, first + len(GENES)))
        if block:
            columns = (first - len(GENES) + GENES.index("filters"), *columns)
        radices = tuple(len(decisions[column].choices) for column in columns)
        groups.append(Group(columns, radices, tuple(_block_rows(skeleton, block))))
    return CostTables.make(Row.of(stem), groups)


def _block_rows(skeleton: Skeleton, block: int) -> Iterator[Row]:
    """An entry for every combination of the block's choices, in the order of the codes."""
    plan = skeleton.blocks[block]
    inputs = skeleton.blocks[block - 1].filters if block else (skeleton.stem.out_channels,)
    is_last = block == len(skeleton.blocks) - 1
    after = reduced(plan.size, plan.stride)
    for source, op, kernel, se, skip, filters in product(inputs, OPS, KERNELS, SE_RATIOS, SKIPS, plan.filters):
        genes = (op, kernel, se, skip)
        row = _layer_row(*genes, source, filters, plan.stride, plan.size, is_first=True)
        if is_last:
            row += _tail_row(skeleton, filters, after)
        further = _layer_row(*genes, filters, filters, 1, after, is_first=False)
        for layers in plan.layers:
            yield row + further.times(layers - 1)


@lru_cache(maxsize=20_000)
def _layer_row(
    op: str, kernel: int, se: float, skip: str, source: int, filters: int, stride: int, size: Size, *, is_first: bool
) -> Row:
    tally = Tally()
    tally_layer(make_layer(op, kernel, se, skip, source, filters, stride, first=is_first), size, tally)
    return Row.of(tally)


def _tail_row(skeleton: Skeleton, channels: int, size: Size) -> Row:
    tally = Tally()
    tally_classifier(skeleton.head(channels), channels, skeleton.classes, size, tally)
    return Row.of(tally)
