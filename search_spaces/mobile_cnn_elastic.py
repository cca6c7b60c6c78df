"""All networks of ``mobile_cnn`` in one set of weights."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any

from .elastic.chain import ElasticChain, Specs
from .elastic.conv import KernelSharing
from .elastic.layer import NormSharing
from .layer_specs import LayerSpec
from .mobile_cnn_blocks import KERNELS, OPS, SE_RATIOS, SKIPS, make_layer
from .mobile_cnn_skeleton import Skeleton

if TYPE_CHECKING:
    from .mobile_cnn import MobileCNN


class ElasticMobileCNN(ElasticChain):
    """The chain of ``mobile_cnn``, every choice of which can be selected.

    By kind of layer there is one set of weights: for ``conv`` (3x3 is the centre of 5x5), for ``dconv``, and
    for the inverted bottlenecks, of which ``mbconv3`` is the first half of ``mbconv6``. Depthwise kernels of 3
    and 5 have weights of their own: they are few, and a 3x3 that is the centre of a 5x5 would have to serve
    as two different filters. Squeeze-and-excitation and shortcuts are run or left out; with
    ``norms="shortcut"``, layers with another shortcut have batch norms of their own.
    """

    space: MobileCNN

    def __init__(self, space: MobileCNN, sharing: KernelSharing = "own", norms: NormSharing = "shortcut") -> None:
        skeleton = space.skeleton
        heads = [skeleton.head(filters) for filters in skeleton.blocks[-1].filters]
        super().__init__(
            space,
            skeleton.stem,
            [_places(skeleton, block) for block in range(len(skeleton.blocks))],
            [head for head in heads if head is not None] or None,
            skeleton.classes,
            sharing,
            norms,
        )
        largest = {decision.name: decision.choices[-1] for decision in space.decisions}
        self.select(largest)

    def specs(self, config: Mapping[str, Any]) -> Specs:
        return self.space.block_specs(config)


def _places(skeleton: Skeleton, block: int) -> list[list[LayerSpec]]:
    """All layers at each place of a block."""
    plan = skeleton.blocks[block]
    inputs = skeleton.blocks[block - 1].filters if block else (skeleton.stem.out_channels,)
    first = [
        make_layer(op, kernel, se, skip, source, filters, plan.stride, first=True)
        for source, filters, op, kernel, se, skip in product(inputs, plan.filters, OPS, KERNELS, SE_RATIOS, SKIPS)
    ]
    further = [
        make_layer(op, kernel, se, skip, filters, filters, 1, first=False)
        for filters, op, kernel, se, skip in product(plan.filters, OPS, KERNELS, SE_RATIOS, SKIPS)
    ]
    return [first, *[further] * (plan.layers[-1] - 1)]
