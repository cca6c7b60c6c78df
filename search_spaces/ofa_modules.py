"""The torch module of a Once-for-All sub-network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.fx
from torch import nn
from torch.nn import functional

from .layer_modules import ChainClassifier
from .layer_specs import LayerSpec
from .ofa_skeleton import OFASkeleton


@torch.fx.wrap
def resized(x: torch.Tensor, edge: int) -> torch.Tensor:
    """``x`` itself where images already have this edge, else resized (bilinear, with anti-aliasing)."""
    if x.shape[-2:] == (edge, edge):
        return x
    return functional.interpolate(x, size=(edge, edge), mode="bilinear", align_corners=False, antialias=True)


class OFAClassifier(ChainClassifier):
    """Resizing, stem, first block, stages, 1x1 convolution, global average pool, hidden layer, classifier.

    Takes ``(batch, channels, height, width)`` float32, gives logits ``(batch, classes)``.
    """

    def __init__(self, skeleton: OFASkeleton, blocks: Sequence[Sequence[LayerSpec]], resolution: int) -> None:
        super().__init__(skeleton.stem, blocks, skeleton.head, skeleton.classes)
        self.resolution = resolution
        # Upstream writes the hidden layer as a 1x1 convolution on a map of 1x1: the same function.
        hidden = nn.Linear(skeleton.head.out_channels, skeleton.mix_filters, bias=False)
        self.mix = nn.Sequential(hidden, nn.Hardswish(inplace=True))
        self.classifier = nn.Linear(skeleton.mix_filters, skeleton.classes)
        initialise_tail(hidden, self.classifier)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(resized(x, self.resolution))))
        logits: torch.Tensor = self.classifier(self.mix(x.mean((2, 3))))
        return logits


def initialise_tail(hidden: nn.Linear, classifier: nn.Linear) -> None:
    """Kaiming by fan-in for the hidden layer, small weights in the classifier."""
    nn.init.kaiming_normal_(hidden.weight, mode="fan_in", nonlinearity="relu")
    nn.init.normal_(classifier.weight, std=0.01)
    nn.init.zeros_(classifier.bias)
