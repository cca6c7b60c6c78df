"""Costs and features of ``ofa_mobilenet``, one table per layer.

Resolution multiplies what every layer costs, so each table lists it, too: resolution x depth of the
stage x kernel x expansion are at most 675 combinations. Stem, first block and tail depend on the
resolution alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product

from .cost_tables import CostTables, Group, Row
from .decision import Decision
from .layer_specs import LayerSpec, Size, Tally, area, reduced, tally_layer, tally_stem
from .ofa_skeleton import MAX_DEPTH, STAGES, OFASkeleton, make_layer

EMPTY = Row.of(Tally())


def make_tables(
    skeleton: OFASkeleton, resolutions: Sequence[int], decisions: Sequence[Decision], index: Mapping[str, int]
) -> CostTables:
    """Tables of a space; about a second for 25 resolutions.

    Args:
        skeleton: What is fixed.
        resolutions: Image edges to choose from.
        decisions: Of the space.
        index: Columns of the decisions by name.
    """
    groups = [Group((0,), (len(resolutions),), [_fixed_row(skeleton, (edge, edge)) for edge in resolutions])]
    for stage, layer in product(range(len(STAGES)), range(MAX_DEPTH)):
        prefix = f"stage{stage + 1}.layer{layer + 1}"
        columns = [0, index[f"{prefix}.kernel"], index[f"{prefix}.expansion"]]
        if decisions[columns[1]].active_when:
            columns.insert(1, index[f"stage{stage + 1}.depth"])
        radices = tuple(len(decisions[column].choices) for column in columns)
        choices = [decisions[column].choices for column in columns[1:]]
        rows = tuple(_layer_rows(skeleton, resolutions, stage, layer, choices))
        groups.append(Group(tuple(columns), radices, rows))
    return CostTables.make(EMPTY, groups, decisions)


def _layer_rows(
    skeleton: OFASkeleton, resolutions: Sequence[int], stage: int, layer: int, choices: Sequence[Sequence[object]]
) -> Iterator[Row]:
    """An entry for every combination, in the order of the codes; nothing where the stage is not that deep."""
    for edge in resolutions:
        size = _input_size(edge, stage, layer)
        for chosen in product(*choices):
            *depth, kernel, expansion = (int(str(choice)) for choice in chosen)
            if depth and depth[0] <= layer:
                yield EMPTY
            else:
                yield _layer_row(make_layer(skeleton, stage, layer, kernel, expansion), size)


@lru_cache(maxsize=20_000)
def _layer_row(spec: LayerSpec, size: Size) -> Row:
    tally = Tally()
    tally_layer(spec, size, tally)
    return Row.of(tally)


def _input_size(edge: int, stage: int, layer: int) -> Size:
    """Size of the map that a layer reads."""
    strides = [2, *(plan.stride for plan in STAGES[:stage])]
    if layer:
        strides.append(STAGES[stage].stride)
    size = (edge, edge)
    for stride in strides:
        size = reduced(size, stride)
    return size


def _fixed_row(skeleton: OFASkeleton, size: Size) -> Row:
    """Stem, first block and tail at one resolution."""
    tally = Tally()
    tally_layer(skeleton.first, tally_stem(skeleton.stem, size, tally), tally)
    last = _input_size(size[0], len(STAGES) - 1, MAX_DEPTH - 1)
    head = skeleton.head
    tally.conv(head, last)
    tally.live(head.in_channels * area(last), head.out_channels * area(last))
    tally.live(head.out_channels * area(last), head.out_channels)
    tally.live(head.out_channels, skeleton.mix_filters)
    tally.live(skeleton.mix_filters, skeleton.classes)
    linear = head.out_channels * skeleton.mix_filters, skeleton.mix_filters * skeleton.classes
    tally.add("parameters", sum(linear) + skeleton.classes)
    tally.add("macs", sum(linear))
    return Row.of(tally)
