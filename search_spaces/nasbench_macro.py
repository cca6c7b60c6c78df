"""NAS-Bench-Macro: 6,561 chains of inverted bottlenecks with published CIFAR-10 accuracies.

Table: github.com/xiusu/NAS-Bench-Macro (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..errors import SpaceError
from .algebra import Genotypes
from .cost_tables import CostTables, Group, Row
from .decision import Choice, Decision
from .image_shape import checked_classes, checked_image_shape
from .layer_specs import ConvSpec, LayerSpec, Size, Tally, reduced, tally_classifier, tally_layer, tally_stem
from .mobile_cnn_blocks import make_layer
from .tabled import TabledSpace
from .workload import Workload

if TYPE_CHECKING:
    from torch import nn

OPS = ("identity", "mb3_k3", "mb6_k5")
STEM_FILTERS, HEAD_FILTERS = 32, 1280
LAYERS = ((64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1), (256, 1))
"""(filters, stride) of each layer."""


class NASBenchMacro(TabledSpace):
    """Eight layers, each ``identity``, ``mb3_k3`` (inverted bottleneck, expansion 3, kernel 3) or
    ``mb6_k5``; keys of the published table are strings of the digits 0, 1, 2 in this order.

    The plan of channels and strides was derived from the published table, whose parameters and
    FLOPs (multiply-accumulates) this space meets exactly for all 6,561 networks: stem 3x3 with 32
    filters and stride 1; layers of 64, 128 and 256 filters, with stride 2 at layers 1, 3 and 6;
    1x1 convolution to 1280, global pooling, linear layer. Where an ``identity`` layer changes the
    shape it is a 1x1 convolution with batch norm. The table cannot tell which activation the
    authors used (here ReLU), nor whether equal shapes are added (here they are, as in MobileNetV2).

    Args:
        input_shape: ``(channels, height, width)`` of an image.
        classes: Number of classes.
    """

    name: ClassVar[str] = "nasbench_macro"

    def __init__(self, input_shape: Sequence[int] = (3, 32, 32), classes: int = 10) -> None:
        channels, self._size = checked_image_shape(input_shape, smallest=8)
        self._classes = checked_classes(classes)
        self._stem = ConvSpec(channels, STEM_FILTERS, kernel=3)
        self._head = ConvSpec(LAYERS[-1][0], HEAD_FILTERS)
        decisions = tuple(Decision(f"layer{index + 1}", OPS, ordered=True) for index in range(len(LAYERS)))
        super().__init__(decisions, Workload(tuple(input_shape)))

    def arguments(self) -> dict[str, Any]:
        return {"input_shape": list(self.workload.input_shape), "classes": self._classes}

    @cached_property
    def named(self) -> Mapping[str, Mapping[str, Choice]]:
        """All layers alike: ``all_mb6_k5`` (the largest network, the reference), ``all_mb3_k3``,
        ``all_identity``."""
        return {f"all_{op}": {d.name: op for d in self.decisions} for op in reversed(OPS)}

    def build(self, config: Mapping[str, Any]) -> nn.Module:
        """Images ``(batch, channels, height, width)`` to logits ``(batch, classes)``."""
        from .layer_modules import ChainClassifier

        row = self.genotype(config)
        blocks = [_layers(int(gene), *geometry[:3]) for gene, geometry in zip(row, self._geometry(), strict=True)]
        return ChainClassifier(self._stem, blocks, self._head, self._classes)

    @cached_property
    def tables(self) -> CostTables:
        """Costs and features of every layer."""
        base = Tally()
        size = tally_stem(self._stem, self._size, base)
        groups = []
        for column, (source, filters, stride, size) in enumerate(self._geometry()):
            rows = []
            for gene in range(len(OPS)):
                tally = Tally()
                for layer in _layers(gene, source, filters, stride):
                    tally_layer(layer, size, tally)
                rows.append(Row.of(tally))
            groups.append(Group((column,), (len(OPS),), rows))
        tally_classifier(self._head, LAYERS[-1][0], self._classes, reduced(size, LAYERS[-1][1]), base)
        return CostTables.make(Row.of(base), groups)

    def digits(self, genotypes: Genotypes) -> list[str]:
        """Keys of the published table, for example ``"02012100"``, of rows ``(N, D)``."""
        return ["".join(map(str, row)) for row in genotypes.tolist()]

    def from_digits(self, texts: Sequence[str]) -> Genotypes:
        """Rows ``(N, D)`` of keys of the published table.

        Raises:
            SpaceError: If one is not eight digits of 0, 1, 2.
        """
        for text in texts:
            if len(text) != len(LAYERS) or set(text) - set("012"):
                raise SpaceError(
                    "not an architecture of this benchmark", field="digits", value=text, allowed="8 digits of 0, 1, 2"
                )
        genes = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8) - ord("0")
        return self.algebra.validate(genes.reshape(-1, len(LAYERS)))

    def _geometry(self) -> Iterator[tuple[int, int, int, Size]]:
        """(input channels, filters, stride, input size) of each layer."""
        source, size = self._stem.out_channels, reduced(self._size, self._stem.stride)
        for filters, stride in LAYERS:
            yield source, filters, stride, size
            source, size = filters, reduced(size, stride)


def _layers(gene: int, source: int, filters: int, stride: int) -> tuple[LayerSpec, ...]:
    """The layer of a choice; none where the identity keeps the shape."""
    if OPS[gene] != "identity":
        op, kernel = {"mb3_k3": ("mbconv3", 3), "mb6_k5": ("mbconv6", 5)}[OPS[gene]]
        return (make_layer(op, kernel, 0.0, "identity", source, filters, stride, first=True),)
    if source == filters and stride == 1:
        return ()
    return (LayerSpec((ConvSpec(source, filters, 1, stride, relu=False),)),)
