"""All networks of ``mobile_cnn`` as one mixture, over its shared weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from .elastic.conv import KernelSharing
from .elastic.layer import ElasticLayer
from .layer_modules import PoolShortcut
from .layer_specs import ConvSpec, LayerSpec
from .mobile_cnn_blocks import KERNELS, OPS, SE_RATIOS, SKIPS, make_layer
from .mobile_cnn_elastic import ElasticMobileCNN
from .mobile_cnn_tables import GENES
from .relaxed import RelaxedModel, present, weighted

if TYPE_CHECKING:
    from .mobile_cnn import MobileCNN

BODIES = tuple(product(OPS, KERNELS, SE_RATIOS))
"""What a layer computes, in the order of the gates."""
GROUPS_PER_BLOCK = 4
IDENTITY, POOL = SKIPS.index("identity"), SKIPS.index("pool")

_layer = lru_cache(maxsize=16384)(make_layer)


class RelaxedMobileCNN(RelaxedModel):
    """A thin layer over :class:`~.mobile_cnn_elastic.ElasticMobileCNN`: the weights are those of the supernet,
    but for batch norms, which all layers of a kind share.

    A block has four groups of gates. *Body* (operation, kernel, squeeze-and-excitation): a weighted sum of the bodies
    that are present. *Skip*: the weight of the shortcut that is added. *Filters*: the widest one that is present is run
    and its channels are weighted by the sum of the gates that have them (FBNetV2's masks, 2004.05565, Section 3.2).
    *Layers*: a weighted sum of the outputs after each number of layers.

    Where blocks are mixed, squeezes are as wide as the mixture's input says; at the corners all is as in the network.
    """

    space: MobileCNN

    def __init__(self, space: MobileCNN, sharing: KernelSharing = "own") -> None:
        columns = {gene: index for index, gene in enumerate(GENES)}
        groups = []
        for block in range(len(space.skeleton.blocks)):
            first = block * len(GENES)
            for genes in (("op", "kernel", "se"), ("skip",), ("filters",), ("layers",)):
                groups.append([first + columns[gene] for gene in genes])
        super().__init__(space, groups)
        self.elastic = ElasticMobileCNN(space, sharing, norms="all")  # a body runs beside a mixture of shortcuts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        model, plans = self.elastic, self.space.skeleton.blocks
        x, source = model.stem(x), self.space.skeleton.stem.out_channels
        for index, plan in enumerate(plans):
            gates = self.gates[index * GROUPS_PER_BLOCK : (index + 1) * GROUPS_PER_BLOCK]
            layers = [cast(ElasticLayer, layer) for layer in cast(nn.ModuleList, model.blocks[index])]
            x, source = _block(x, source, layers, plan.filters, plan.layers, plan.stride, gates)
        if model.head is None:
            model.classifier.resize(in_features=source)
        else:
            spec = model.head.spec
            model.head.resize(ConvSpec(source, spec.out_channels, activation=spec.activation))
            x = model.head(x)
        logits: torch.Tensor = model.classifier(x.mean((2, 3)))
        return logits

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        return self.elastic.extract(config)


def _block(
    x: torch.Tensor,
    source: int,
    layers: list[ElasticLayer],
    filters: tuple[int, ...],
    counts: tuple[int, ...],
    stride: int,
    gates: tuple[torch.Tensor, ...],
) -> tuple[torch.Tensor, int]:
    """A block's mixture ``(batch, widest, height, width)`` and its channels."""
    body, skip, filter_gate, layer_gate = gates
    widest = filters[max(present(filter_gate))]
    mask = _mask(filter_gate, filters, widest)
    stops = {counts[i]: layer_gate[i] for i in present(layer_gate)}
    total: torch.Tensor | None = None
    for index in range(max(stops)):
        first = index == 0
        x = _mixed_layer(x, layers[index], source, widest, stride if first else 1, first, body, skip)
        if mask is not None:
            x = x * mask
        source = widest
        if index + 1 in stops:
            term = weighted(stops[index + 1], x)
            total = term if total is None else total + term
    if total is None:  # cannot be: some number of layers is present
        raise RuntimeError("a block without layers")
    return total, widest


def _mixed_layer(
    x: torch.Tensor,
    layer: ElasticLayer,
    source: int,
    out: int,
    stride: int,
    first: bool,
    body: torch.Tensor,
    skip: torch.Tensor,
) -> torch.Tensor:
    """One layer as the weighted sum of its present bodies, each with the weighted shortcut."""
    shortcut = _shortcut(x, source, out, stride, first, skip)
    total: torch.Tensor | None = None
    for index in present(body):
        op, kernel, se = BODIES[index]
        spec: LayerSpec = _layer(op, kernel, se, "none", source, out, stride, first=first)
        layer.resize(spec)
        y = layer.body(x)
        if shortcut is not None:
            y = y + shortcut
        if spec.final_relu:
            y = functional.relu(y)
        term = weighted(body[index], y)
        total = term if total is None else total + term
    if total is None:
        raise RuntimeError("a layer without a body")
    return total


def _shortcut(
    x: torch.Tensor, source: int, out: int, stride: int, first: bool, skip: torch.Tensor
) -> torch.Tensor | None:
    """What is added to a layer, or None for nothing."""
    chosen, same = present(skip), stride == 1 and source == out
    total: torch.Tensor | None = None
    if same:
        identities = (IDENTITY,) if first else (IDENTITY, POOL)
        if any(index in chosen for index in identities):
            total = weighted(skip[list(identities)].sum(), x)
    if first and POOL in chosen:
        pooled = weighted(skip[POOL], _pool(source, out, stride)(x))
        total = pooled if total is None else total + pooled
    return total


def _mask(gate: torch.Tensor, filters: tuple[int, ...], widest: int) -> torch.Tensor | None:
    """The weight of each channel ``(1, widest, 1, 1)``; None where all are a constant 1."""
    if not gate.requires_grad and len(present(gate)) == 1:
        return None
    bounds = [0, *filters]
    parts = [gate[i:].sum().expand(high - low) for i, (low, high) in enumerate(pairwise(bounds)) if high <= widest]
    return torch.cat(parts)[None, :, None, None]


@lru_cache(maxsize=1024)
def _pool(in_channels: int, out_channels: int, stride: int) -> PoolShortcut:
    return PoolShortcut(in_channels, out_channels, stride)
