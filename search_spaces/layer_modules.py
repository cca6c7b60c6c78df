"""Torch modules built from the specifications of ``layer_specs``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .layer_specs import ConvSpec, LayerSpec


class ConvNorm(nn.Sequential):
    """Convolution with "same" padding, then batch norm (unless it has a bias), then maybe an activation."""

    def __init__(self, spec: ConvSpec) -> None:
        modules: list[nn.Module] = [
            nn.Conv2d(
                spec.in_channels,
                spec.out_channels,
                spec.kernel,
                spec.stride,
                padding=spec.kernel // 2,
                groups=spec.groups,
                bias=not spec.norm,
            )
        ]
        if spec.norm:
            modules.append(nn.BatchNorm2d(spec.out_channels))
        if spec.relu:
            modules.append(nn.ReLU(inplace=True) if spec.activation == "relu" else nn.Hardswish(inplace=True))
        super().__init__(*modules)


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate in [0, 1] computed from the channels' means (1709.01507).

    The gate is a hard sigmoid, as in MobileNetV3, because runtimes quantise it well.
    """

    def __init__(self, convs: Sequence[ConvSpec]) -> None:
        super().__init__()
        self.gate = nn.Sequential(*(ConvNorm(conv) for conv in convs), nn.Hardsigmoid())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated: torch.Tensor = x * self.gate(x.mean((2, 3), keepdim=True))
        return gated


class ChannelShuffle(nn.Module):
    """Exchanges channels between ``groups`` groups (1707.01083, Figure 1), so that the next grouped
    convolution sees all of them."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shuffled: torch.Tensor = x.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        return shuffled


class PoolShortcut(nn.Module):
    """A shortcut without parameters across a change of shape: 3x3 average pool by the stride, then
    channels cut, or padded with zeros, to fit."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(x)
        if self.out_channels > self.in_channels:
            return functional.pad(x, (0, 0, 0, 0, 0, self.out_channels - self.in_channels))
        return x[:, : self.out_channels] if self.out_channels < self.in_channels else x


class Layer(nn.Module):
    """One layer of a block. The shortcut runs first, so that a strided one frees the large input."""

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        for index, conv in enumerate(spec.convs):
            modules.append(ConvNorm(conv))
            if spec.shuffle and index == 0:
                modules.append(ChannelShuffle(spec.shuffle))
            if spec.squeeze and index == spec.spatial:
                modules.append(SqueezeExcitation(spec.squeeze_convs))
        self.body = nn.Sequential(*modules)
        self.shortcut: nn.Module | None = None
        if spec.shortcut == "identity":
            self.shortcut = nn.Identity()
        elif spec.shortcut == "pool":
            self.shortcut = PoolShortcut(spec.in_channels, spec.out_channels, spec.stride)
        self.relu = nn.ReLU(inplace=True) if spec.final_relu else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.shortcut is None:
            x = self.body(x)
        else:
            held = self.shortcut(x)
            x = self.body(x) + held
        return x if self.relu is None else self.relu(x)


class ChainClassifier(nn.Module):
    """Stem, blocks of layers, optional head convolution, global average pool, classifier.

    Takes ``(batch, channels, height, width)`` float32, gives logits ``(batch, classes)``. A block
    may be empty.
    """

    def __init__(
        self, stem: ConvSpec, blocks: Sequence[Sequence[LayerSpec]], head: ConvSpec | None, classes: int
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(stem)
        self.blocks = nn.Sequential(*(nn.Sequential(*(Layer(spec) for spec in block)) for block in blocks))
        self.head = nn.Identity() if head is None else ConvNorm(head)
        last = [stem, *(conv for block in blocks for layer in block for conv in layer.convs)][-1]
        features = last.out_channels if head is None else head.out_channels
        self.classifier = nn.Linear(features, classes)
        self.apply(initialise)
        # Trains small networks nearly twice as fast on a CPU, whatever the format of the images.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.head(self.blocks(self.stem(x)))
        logits: torch.Tensor = self.classifier(x.mean((2, 3)))
        return logits


def initialise(module: nn.Module) -> None:
    """Kaiming for convolutions, small weights in the classifier.

    By fan-out, as usual for MobileNets: it makes depthwise weights small, hence fast to change under
    batch norm, and short trainings clearly better than fan-in does.
    """
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)
