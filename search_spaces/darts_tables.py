"""Costs and features of ``darts``: a table for each edge of either kind of cell, added up over all cells of that kind.

What an edge costs depends on whether its node keeps it and on its operation; all else every network has.
"""

from __future__ import annotations

from collections.abc import Sequence

from .cost_tables import CostTables, Group, Row
from .darts_cells import CELLS, EDGES, INPUTS, KERNELS, NODES, NONE, OPS, SKIP, pairs
from .darts_modules import CellPlace, edge_stride
from .decision import Decision
from .layer_specs import ConvSpec, Size, Tally, area, reduced, tally_classifier


def make_tables(
    places: Sequence[CellPlace],
    decisions: Sequence[Decision],
    image_channels: int,
    size: Size,
    stem: int,
    classes: int,
) -> CostTables:
    """Tables of a space."""
    sizes = place_sizes(places, size)
    index = {decision.name: column for column, decision in enumerate(decisions)}
    groups = []
    for cell in CELLS:
        own = [(place, at) for place, at in zip(places, sizes, strict=True) if place.kind == cell]
        for source, node in EDGES:
            rows = [_edge_row(own, op, source) for op in range(len(OPS))]
            column = index[f"{cell}.op{source}_{node}"]
            if len(pairs(node)) == 1:
                groups.append(Group((column,), (len(OPS),), rows))
                continue
            nothing = Row.of(Tally())
            both = [row if source in pair else nothing for pair in pairs(node) for row in rows]
            groups.append(Group((index[f"{cell}.inputs{node}"], column), (len(pairs(node)), len(OPS)), both))
    base = _base(places, sizes, image_channels, size, stem, classes)
    return CostTables.make(base, groups, decisions)


def place_sizes(places: Sequence[CellPlace], size: Size) -> list[Size]:
    """The size of each cell's second input."""
    sizes = []
    for place in places:
        sizes.append(size)
        size = reduced(size, 2) if place.reduces else size
    return sizes


def _edge_row(places: Sequence[tuple[CellPlace, Size]], op: int, source: int) -> Row:
    """An operation on this edge, in all cells of a kind."""
    tally = Tally()
    for place, size in places:
        stride = edge_stride(place, source)
        if source >= INPUTS and place.reduces:
            size = reduced(size, 2)
        _operation(tally, op, place.channels, size, stride)
    return Row.of(tally)


def _operation(tally: Tally, op: int, channels: int, size: Size, stride: int) -> None:
    after = reduced(size, stride)
    if op == NONE:
        return
    tally.add("layers", 1)
    if OPS[op] not in KERNELS:
        if op == SKIP and stride == 2:
            _factorized(tally, channels, channels, size)
        elif op != SKIP:
            tally.add("pools", 1)
            tally.add("pool_elements", channels * (area(size) + area(after)))
        return
    kernel, is_dilated = KERNELS[OPS[op]], OPS[op].startswith("dil")
    for step, at in ((stride, size), (1, after))[: 1 if is_dilated else 2]:
        _conv(tally, ConvSpec(channels, channels, kernel, step, groups=channels), at, has_norm=False)
        _conv(tally, ConvSpec(channels, channels), after)


def _conv(tally: Tally, spec: ConvSpec, size: Size, *, has_norm: bool = True) -> None:
    """A convolution without bias, followed by batch norm or not."""
    tally.conv(spec, size)
    if not has_norm:
        tally.add("parameters", -2 * spec.out_channels)


def _factorized(tally: Tally, in_channels: int, out_channels: int, size: Size) -> None:
    for out in (out_channels // 2, out_channels - out_channels // 2):
        _conv(tally, ConvSpec(in_channels, out, stride=2), size)


def _base(
    places: Sequence[CellPlace], sizes: Sequence[Size], image_channels: int, size: Size, stem: int, classes: int
) -> Row:
    """Stem, the cells' preprocessing, classifier; and the peak of live elements.

    The peak is the same for all: a cell holds both inputs of the next cell, its own two, and its four nodes.
    """
    tally = Tally()
    _conv(tally, ConvSpec(image_channels, stem, 3), size)
    tally.live(image_channels * area(size), stem * area(size))
    for place, at in zip(places, sizes, strict=True):
        if place.halve_before_last:
            before = next(s for s, p in zip(reversed(sizes), reversed(places), strict=True) if p.reduces and s > at)
            _factorized(tally, place.before_last, place.channels, before)
        else:
            _conv(tally, ConvSpec(place.before_last, place.channels), at)
        _conv(tally, ConvSpec(place.last, place.channels), at)
        after = reduced(at, 2) if place.reduces else at
        inputs = 2 * place.channels * area(at)
        tally.live(place.last * area(at), inputs, 2 * NODES * place.channels * area(after))
    last, at = places[-1], sizes[-1]
    end = reduced(at, 2) if last.reduces else at
    tally_classifier(None, NODES * last.channels, classes, end, tally)
    return Row.of(tally)
