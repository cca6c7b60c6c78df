"""MnasNet's factorized hierarchical space of convolutional networks (1807.11626, Section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from .algebra import Genotypes
from .cost_tables import CostTables
from .decision import Choice, Decision
from .layer_specs import LayerSpec
from .mobile_cnn_blocks import KERNELS, OPS, SE_RATIOS, SKIPS, make_block
from .mobile_cnn_named import named_configs
from .mobile_cnn_skeleton import Skeleton, make_skeleton
from .mobile_cnn_tables import GENES, make_tables
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

    from .elastic.conv import KernelSharing
    from .mobile_cnn_elastic import ElasticMobileCNN
    from .mobile_cnn_relaxed import RelaxedMobileCNN


class MobileCNN(TabledSpace):
    """A chain of blocks over MobileNetV2's skeleton; in each block one layer is chosen and repeated.

    Six decisions a block: operation (``conv``, depthwise-separable ``dconv``, inverted bottleneck
    ``mbconv3`` or ``mbconv6``), kernel (3, 5), squeeze-and-excitation ratio (0, 0.25), shortcut
    (``none``, ``identity``, ``pool``), filters (0.75, 1 or 1.25 times MobileNetV2's) and layers
    (one less, the same, one more). Choices that coincide after rounding are offered once.

    Where the paper leaves things open or this space departs from it:

    - ``pool`` adds, in a block's first layer, the input average-pooled 3x3 by the layer's stride,
      channels cut or zero-padded to fit (no parameters), and the identity in the other layers.
      ``identity`` adds the input wherever shapes agree. Where they never do in a block (one layer
      that changes shape), ``identity`` builds the same network as ``none``:
      :meth:`function_keys` says so.
    - ``conv`` adds its shortcut before ReLU, as ResNet does; the other operations end linearly, as
      MobileNetV2 does.
    - The first block's operation is searched, too (in MnasNet it is fixed).
    - Filters are multiples of 8, or of 4 where multiples of 8 would merge the choices. MnasNet-A1
      therefore has 120 filters in block 5 (112 in the paper), B1 200 in block 6 (192).
    - ReLU throughout; hard sigmoid in squeeze-and-excitation.
    - Small images: strides are dropped once the map would fall below 4x4; below 64 pixels there is
      no head convolution, below 24 pixels the stem keeps the resolution.

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes.
        width: Multiplies all filters.
        blocks: Number of MobileNetV2's blocks to use (1 to 7), or a list of
            ``{filters, layers, stride}``.
        stem_filters: Output channels of the stem; None for 32 x width.
        head_filters: Output channels of the 1x1 convolution before pooling, 0 for none; None for
            1280 (x width above 1), or 0 for small images.
    """

    name: ClassVar[str] = "mobile_cnn"

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        classes: int = 1000,
        width: float = 1.0,
        blocks: int | Sequence[Mapping[str, Any]] = 7,
        stem_filters: int | None = None,
        head_filters: int | None = None,
    ) -> None:
        self.skeleton: Skeleton = make_skeleton(input_shape, classes, width, blocks, stem_filters, head_filters)
        self._arguments: dict[str, Any] = {
            "input_shape": list(input_shape),
            "classes": classes,
            "width": float(width),
            "blocks": blocks if isinstance(blocks, int) else [dict(block) for block in blocks],
            "stem_filters": stem_filters,
            "head_filters": head_filters,
        }
        super().__init__(_decisions(self.skeleton), Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return dict(self._arguments)

    def block_specs(self, config: Mapping[str, Any]) -> list[tuple[LayerSpec, ...]]:
        """The layers of each block, as :meth:`build` makes them."""
        config = self.config(self.genotype(config))
        specs, channels = [], self.skeleton.stem.out_channels
        for index, plan in enumerate(self.skeleton.blocks):
            op, kernel, se, skip, filters, layers = (config[f"block{index + 1}.{gene}"] for gene in GENES)
            specs.append(
                make_block(str(op), int(kernel), float(se), str(skip), channels, int(filters), int(layers), plan.stride)
            )
            channels = int(filters)
        return specs

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """A :class:`~gnomon.search_spaces.layer_modules.ChainClassifier`: images ``(batch, channels,
        height, width)`` to logits ``(batch, classes)``."""
        from .layer_modules import ChainClassifier

        specs = self.block_specs(config)
        head = self.skeleton.head(specs[-1][-1].out_channels)
        return ChainClassifier(self.skeleton.stem, specs, head, self.skeleton.classes)

    def elastic(self, sharing: KernelSharing = "own") -> ElasticMobileCNN:
        """All networks in one set of weights.

        Args:
            sharing: How a smaller depthwise kernel comes from a larger one: ``own`` weights, its ``crop``, or
                a crop that a matrix transforms (``transform``).
        """
        from .mobile_cnn_elastic import ElasticMobileCNN

        return ElasticMobileCNN(self, sharing)

    def relaxed(self, sharing: KernelSharing = "own") -> RelaxedMobileCNN:
        """All networks as one mixture, over the weights of :meth:`elastic`."""
        from .mobile_cnn_relaxed import RelaxedMobileCNN

        return RelaxedMobileCNN(self, sharing)

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of every block."""
        return make_tables(self.skeleton, self.decisions)

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``mobilenet_v2`` (the reference), ``mnasnet_a1`` and others. Names that end in ``_like``
        share a network's kind of layers, not its widths and depths."""
        return named_configs(self.skeleton)

    def function_keys(self, genotypes: Genotypes) -> list[str]:
        """Keys after replacing ``identity`` by ``none`` in blocks where no shortcut has equal shapes."""
        rows = genotypes.copy()
        none, identity = SKIPS.index("none"), SKIPS.index("identity")
        channels: npt.NDArray[np.int64] = np.full(len(rows), self.skeleton.stem.out_channels)
        for index, plan in enumerate(self.skeleton.blocks):
            block = rows[:, index * len(GENES) : (index + 1) * len(GENES)]
            filters = np.array(plan.filters)[block[:, GENES.index("filters")]]
            is_single = np.array(plan.layers)[block[:, GENES.index("layers")]] == 1
            never = is_single & ((filters != channels) | (plan.stride > 1))
            skip = block[:, GENES.index("skip")]
            skip[never & (skip == identity)] = none
            channels = filters
        return self.keys(rows)


def _decisions(skeleton: Skeleton) -> tuple[Decision, ...]:
    decisions: list[Decision] = []
    for index, plan in enumerate(skeleton.blocks):
        name = f"block{index + 1}"
        decisions += [
            Decision(f"{name}.op", OPS, ordered=True),
            Decision(f"{name}.kernel", KERNELS, ordered=True),
            Decision(f"{name}.se", SE_RATIOS, ordered=True),
            Decision(f"{name}.skip", SKIPS),
            Decision(f"{name}.filters", plan.filters, ordered=True),
            Decision(f"{name}.layers", plan.layers, ordered=True),
        ]
    return tuple(decisions)
