"""Known networks as patterns over the blocks of ``mobile_cnn``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .decision import Choice
from .mobile_cnn_skeleton import Skeleton


class BlockPattern(NamedTuple):
    """A block relative to the skeleton: filters as a ratio, layers as a difference."""

    op: str
    kernel: int = 3
    se: float = 0.0
    skip: str = "identity"
    ratio: float = 1.0
    more_layers: int = 0


Pattern = tuple[BlockPattern, ...]
"""One entry a block; the last one serves all further blocks."""

NAMED: Mapping[str, Pattern] = {
    # 1801.04381, Table 2. Exact at 224 pixels and width 1, but for ReLU in place of ReLU6.
    "mobilenet_v2": (BlockPattern("dconv"), BlockPattern("mbconv6")),
    # 1807.11626, Figure 7. Block 5 has 112 filters there; the nearest choice is 120.
    "mnasnet_a1": (
        BlockPattern("dconv", skip="none"),
        BlockPattern("mbconv6"),
        BlockPattern("mbconv3", 5, 0.25, ratio=1.25),
        BlockPattern("mbconv6", ratio=1.25),
        BlockPattern("mbconv6", se=0.25, ratio=1.25, more_layers=-1),
        BlockPattern("mbconv6", 5, 0.25),
        BlockPattern("mbconv6"),
    ),
    # The authors' B1, without squeeze-and-excitation. Block 6 has 192 filters there; nearest is 200.
    "mnasnet_b1": (
        BlockPattern("dconv", skip="none"),
        BlockPattern("mbconv3", more_layers=1),
        BlockPattern("mbconv3", 5, ratio=1.25),
        BlockPattern("mbconv6", 5, ratio=1.25, more_layers=-1),
        BlockPattern("mbconv6", more_layers=-1),
        BlockPattern("mbconv6", 5, ratio=1.25, more_layers=1),
        BlockPattern("mbconv6", skip="none"),
    ),
    # 1905.11946: the block types of B0; its widths and depths as near as the choices allow.
    "efficientnet_b0_like": (
        BlockPattern("dconv", se=0.25),
        BlockPattern("mbconv6", se=0.25),
        BlockPattern("mbconv6", 5, 0.25, ratio=1.25, more_layers=-1),
        BlockPattern("mbconv6", 3, 0.25, ratio=1.25, more_layers=-1),
        BlockPattern("mbconv6", 5, 0.25, ratio=1.25),
        BlockPattern("mbconv6", 5, 0.25, ratio=1.25, more_layers=1),
        BlockPattern("mbconv6", se=0.25),
    ),
    # 1704.04861: depthwise-separable layers without shortcuts, on this skeleton's widths.
    "mobilenet_v1_like": (BlockPattern("dconv", skip="none", ratio=1.25),),
    # 1409.1556: plain 3x3 convolutions, on this skeleton's widths.
    "vgg_like": (BlockPattern("conv", skip="none", more_layers=-1),),
    # 1512.03385: 3x3 convolutions with identity shortcuts, on this skeleton's widths.
    "resnet_like": (BlockPattern("conv", more_layers=-1),),
}


def named_configs(skeleton: Skeleton) -> dict[str, dict[str, Choice]]:
    """Each named network as a config: the nearest choices in every block."""
    return {name: _config(skeleton, pattern) for name, pattern in NAMED.items()}


def _config(skeleton: Skeleton, pattern: Pattern) -> dict[str, Choice]:
    config: dict[str, Choice] = {}
    for index, plan in enumerate(skeleton.blocks):
        block = pattern[min(index, len(pattern) - 1)]
        filters, layers = plan.base_filters * block.ratio, plan.base_layers + block.more_layers
        config |= {
            f"block{index + 1}.op": block.op,
            f"block{index + 1}.kernel": block.kernel,
            f"block{index + 1}.se": block.se,
            f"block{index + 1}.skip": block.skip,
            f"block{index + 1}.filters": min(plan.filters, key=lambda choice: abs(choice - filters)),
            f"block{index + 1}.layers": min(plan.layers, key=lambda choice: abs(choice - layers)),
        }
    return config
