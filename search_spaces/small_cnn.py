"""Shallow, wide convolutional networks for small images, which take microseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import SpaceError
from .cost_tables import CostTables
from .decision import Choice, Decision
from .image_shape import checked_classes, checked_image_shape, checked_width, kept_strides
from .layer_specs import Activation, ConvSpec, LayerSpec, Size, reduced
from .mobile_cnn_skeleton import TINY_IMAGE, rounded
from .small_cnn_layers import ACTIVATIONS, GENES, KERNELS, OPS, SE_RATIOS, stage_layers
from .small_cnn_tables import make_tables
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

STEM_FILTERS = (8, 16, 24, 32)
FILTERS = 32
"""Of the first stage at width 1; each further stage has twice as many."""
FILTER_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.5)
LAYERS = (1, 2, 3)
MAX_STAGES = 6
MIN_MAP = 4


class SmallCNN(TabledSpace):
    """Stem, one to ``stages`` stages, global pooling, classifier.

    Spaces made for large images spend many thin layers on resolutions that a small image does not have. On a CPU such
    a network waits more than it computes: each operation costs a microsecond or so whatever its size, and channels are
    computed in blocks of 8 or 16. Here the number of stages is searched, too, from one layer on, and filters range
    over a factor of six.

    Decisions for the whole network: ``activation`` (ReLU or hard swish), ``stem.filters``, ``stem.kernel``,
    ``stem.stride``, ``stages``. In each stage one layer is chosen and repeated: ``op``, ``kernel`` (3, 5), ``se``
    (squeeze-and-excitation to a quarter of the gated channels), ``filters``, ``layers`` (1 to 3). Operations are

    - ``conv``: one k x k convolution;
    - ``separable``: depthwise and pointwise, an activation behind both (MobileNetV1, PP-LCNet: 1704.04861, 2109.15099);
    - ``mbconv3``: MobileNetV2's inverted bottleneck, expansion 3 (1801.04381);
    - ``fused3``: the same with one k x k convolution in place of its first two (EfficientNetV2: 2104.00298).

    Bottlenecks add their input wherever the shape is kept. The stem's stride is 2 or 4 for images of 24 pixels and
    more, else 1 or 2; every stage but the first halves the map, as long as it stays 4x4 or larger.

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes.
        width: Multiplies the stages' filters, rounded to multiples of 8.
        stages: The most stages, 1 to 6.
    """

    name: ClassVar[str] = "small_cnn"
    stem_filters = STEM_FILTERS
    stage_depths = LAYERS

    def __init__(
        self, input_shape: Sequence[int] = (3, 32, 32), classes: int = 10, width: float = 1.0, stages: int = 4
    ) -> None:
        self._channels, self.size = checked_image_shape(input_shape, smallest=MIN_MAP)
        self.classes = checked_classes(classes)
        self._width = checked_width(width)
        if isinstance(stages, bool) or not isinstance(stages, int) or not 1 <= stages <= MAX_STAGES:
            raise SpaceError("out of range", field="stages", value=stages, allowed=f"1 to {MAX_STAGES}")
        self.stages = stages
        wanted = (2, 4) if min(self.size) >= TINY_IMAGE else (1, 2)
        self.stem_strides = tuple(
            dict.fromkeys(kept_strides(min(self.size), [stride], MIN_MAP)[0] for stride in wanted)
        )
        self.stage_filters = tuple(
            tuple(dict.fromkeys(rounded(FILTERS * 2**stage * self._width * ratio, 8) for ratio in FILTER_RATIOS))
            for stage in range(stages)
        )
        super().__init__(self._decisions(), Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {
            "input_shape": list(self.workload.input_shape),
            "classes": self.classes,
            "width": self._width,
            "stages": self.stages,
        }

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """``separable`` (the reference), ``conv``, ``mbconv3`` and ``fused3``: two layers of one kind in each stage."""
        return {op: self._uniform(op) for op in ("separable", *(op for op in OPS if op != "separable"))}

    def stem(self, filters: int, kernel: int, stride: int, activation: Activation) -> ConvSpec:
        """The first convolution."""
        return ConvSpec(self._channels, filters, kernel, stride, activation=activation)

    def geometry(self, stem_stride: int) -> list[tuple[Size, int]]:
        """Size of the map that each stage reads, and the stage's stride."""
        size = reduced(self.size, stem_stride)
        found = []
        for stride in kept_strides(min(size), [1, *[2] * (self.stages - 1)], MIN_MAP):
            found.append((size, stride))
            size = reduced(size, stride)
        return found

    def stage_specs(self, config: Mapping[str, Any]) -> list[tuple[LayerSpec, ...]]:
        """The layers of each stage, as :meth:`build` makes them."""
        genes: dict[str, Any] = dict(self.config(self.genotype(config)))
        channels, specs = genes["stem.filters"], []
        for stage, (_, stride) in enumerate(self.geometry(genes["stem.stride"])[: genes["stages"]]):
            op, kernel, se, filters, layers = (genes[f"stage{stage + 1}.{gene}"] for gene in GENES)
            own = stage_layers(op, kernel, se, channels, filters, layers, stride, genes["activation"])
            specs.append(tuple(own))
            channels = filters
        return specs

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        from .layer_modules import ChainClassifier

        genes: dict[str, Any] = dict(self.config(self.genotype(config)))
        stem = self.stem(*(genes[name] for name in ("stem.filters", "stem.kernel", "stem.stride", "activation")))
        return ChainClassifier(stem, self.stage_specs(genes), None, self.classes)

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of the stem and of every stage."""
        return make_tables(self)

    def _decisions(self) -> tuple[Decision, ...]:
        decisions = [
            Decision("activation", ACTIVATIONS),
            Decision("stem.filters", STEM_FILTERS, ordered=True),
            Decision("stem.kernel", KERNELS, ordered=True),
            Decision("stem.stride", self.stem_strides, ordered=True),
            Decision("stages", tuple(range(1, self.stages + 1)), ordered=True),
        ]
        for stage, filters in enumerate(self.stage_filters):
            name = f"stage{stage + 1}"
            deep_enough = tuple(range(stage + 1, self.stages + 1))
            when = {"stages": deep_enough} if stage else {}
            choices: tuple[tuple[Choice, ...], ...] = (OPS, KERNELS, SE_RATIOS, filters, LAYERS)
            decisions += [
                Decision(f"{name}.{gene}", own, when, ordered=gene != "op")
                for gene, own in zip(GENES, choices, strict=True)
            ]
        return tuple(decisions)

    def _uniform(self, op: str) -> dict[str, Choice]:
        stages = min(3, self.stages)
        config: dict[str, Choice] = {
            "activation": "hardswish" if op == "separable" else "relu",
            "stem.filters": 16,
            "stem.kernel": 3,
            "stem.stride": self.stem_strides[0],
            "stages": stages,
        }
        for stage in range(stages):
            filters = self.stage_filters[stage]
            own: tuple[Choice, ...] = (op, 3, 0.0, filters[len(filters) // 2], 2)
            config |= {f"stage{stage + 1}.{gene}": choice for gene, choice in zip(GENES, own, strict=True)}
        return config
