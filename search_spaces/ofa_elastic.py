"""All networks of ``ofa_mobilenet`` in one set of weights: the Once-for-All network (1908.09791, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional

from .elastic.chain import ElasticChain, Specs
from .elastic.conv import KernelSharing
from .layer_modules import ChainClassifier
from .ofa_modules import OFAClassifier, initialise_tail, resized
from .ofa_skeleton import MAX_DEPTH, STAGES, make_layer

if TYPE_CHECKING:
    from .ofa_mobilenet import OFAMobileNet


class ElasticOFA(ElasticChain):
    """MobileNetV3 with elastic depth, kernels, expansions and resolution.

    As in the paper, a smaller kernel is the centre of the next larger one times a learnt matrix; a smaller
    expansion is the first channels, which :meth:`sort_channels` puts in order; a smaller depth is the first
    layers of a stage. Images are resized to the selected resolution.
    """

    space: OFAMobileNet

    def __init__(self, space: OFAMobileNet, sharing: KernelSharing = "transform") -> None:
        from .ofa_mobilenet import EXPANSIONS, KERNELS

        skeleton = space.skeleton
        stages = [
            [
                [make_layer(skeleton, stage, layer, kernel, wide) for kernel, wide in product(KERNELS, EXPANSIONS)]
                for layer in range(MAX_DEPTH)
            ]
            for stage in range(len(STAGES))
        ]
        super().__init__(
            space, skeleton.stem, [[[skeleton.first]], *stages], [skeleton.head], skeleton.classes, sharing
        )
        self.resolution = 0
        self.mix = nn.Linear(skeleton.head.out_channels, skeleton.mix_filters, bias=False)
        self.classifier = type(self.classifier)(skeleton.mix_filters, skeleton.classes)
        initialise_tail(self.mix, self.classifier)
        self.select(space.named["largest"])

    def specs(self, config: Mapping[str, Any]) -> Specs:
        return self.space.layer_specs(config)

    def select(self, config: Mapping[str, Any]) -> None:
        super().select(config)
        self.resolution = int(config["resolution"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.features(resized(x, self.resolution))
        logits: torch.Tensor = self.classifier(functional.hardswish(self.mix(features)))
        return logits

    def copy_to(self, plain: ChainClassifier) -> None:
        super().copy_to(plain)
        cast(nn.Linear, cast(OFAClassifier, plain).mix[0]).load_state_dict(self.mix.state_dict())
