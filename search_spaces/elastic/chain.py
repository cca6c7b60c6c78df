"""All networks of a space of chains (stem, blocks of layers, head, classifier) in one set of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from ..layer_modules import ChainClassifier, ConvNorm, Layer, initialise
from ..layer_specs import ConvSpec, LayerSpec
from .conv import ElasticConv2d, KernelSharing
from .layer import ElasticConvNorm, ElasticLayer, NormSharing
from .linear import ElasticLinear
from .model import ElasticModel

if TYPE_CHECKING:
    from ..base import SearchSpace

Specs = Sequence[Sequence[LayerSpec]]
"""The layers of each block of a network."""


class ElasticChain(ElasticModel):
    """A :class:`~gnomon.search_spaces.layer_modules.ChainClassifier` of every architecture of a space.

    A network uses the first channels of each layer, and the first layers of each block; what kinds of layer
    share is said by :class:`~gnomon.search_spaces.elastic.layer.ElasticLayer`. Weights that a network does not
    use get no gradient (``grad`` stays None), except that the gradient of a sliced tensor is zero outside.

    Initialisation and memory format are those of the stand-alone networks.

    Args:
        space: Builds the stand-alone networks.
        stem: The first convolution, the same for all.
        places: For each block and each of its layers, all that can be there.
        head: The convolution behind the blocks, of each input width; None for none.
        classes: Outputs.
        sharing: How a smaller depthwise kernel comes from a larger one; see
            :class:`~gnomon.search_spaces.elastic.conv.ElasticConv2d`.
        norms: Which layers of one kind share batch norms.
    """

    def __init__(
        self,
        space: SearchSpace,
        stem: ConvSpec,
        places: Sequence[Sequence[Sequence[LayerSpec]]],
        head: Sequence[ConvSpec] | None,
        classes: int,
        sharing: KernelSharing,
        norms: NormSharing = "all",
    ) -> None:
        super().__init__()
        self.space = space
        self.stem = ConvNorm(stem)
        self.blocks = nn.ModuleList(
            nn.ModuleList(ElasticLayer(specs, sharing, norms) for specs in block) for block in places
        )
        self.head = None if head is None else ElasticConvNorm(head, sharing="crop")
        last = max(spec.out_channels for spec in places[-1][-1])
        self.classifier = ElasticLinear(last if head is None else head[0].out_channels, classes)
        self.apply(initialise)
        self.apply(_initialise_smaller)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.running: list[list[ElasticLayer]] = []
        self._config: dict[str, Any] = {}

    @abstractmethod
    def specs(self, config: Mapping[str, Any]) -> Specs:
        """The layers of a config.

        Raises:
            SpaceError: If it is not one of the space.
        """

    def select(self, config: Mapping[str, Any]) -> None:
        specs = self.specs(config)
        self._config = dict(config)
        running = []
        for block, layers in zip(self.blocks, specs, strict=True):
            # A block may have more layers than this network uses.
            used = [cast(ElasticLayer, layer) for layer in cast(nn.ModuleList, block)][: len(layers)]
            for layer, spec in zip(used, layers, strict=True):
                layer.resize(spec)
            running.append(used)
        self.running = running
        last = specs[-1][-1].out_channels
        if self.head is None:
            self.classifier.resize(in_features=last)
        else:
            self.head.resize(ConvSpec(last, self.head.spec.out_channels, activation=self.head.spec.activation))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Images to the features behind global pooling ``(batch, features)``."""
        x = self.stem(x)
        for block in self.running:
            for layer in block:
                x = layer(x)
        if self.head is not None:
            x = self.head(x)
        return x.mean((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.features(x))
        return logits

    def extract(self, config: Mapping[str, Any]) -> nn.Module:
        before = self._config
        self.select(config)
        try:
            with torch.random.fork_rng(devices=[]):  # Whoever trains must not notice.
                plain = self.space.build(config)
            self.copy_to(cast(ChainClassifier, plain))
        finally:
            self.select(before)
        return plain.to(self.classifier.weight.device).train(self.training)

    def copy_to(self, plain: ChainClassifier) -> None:
        """Copies the used weights and statistics into a stand-alone network of the selected config."""
        plain.stem.load_state_dict(self.stem.state_dict())
        for layers, block in zip(self.running, plain.blocks, strict=True):
            for layer, module in zip(layers, cast(nn.Sequential, block), strict=True):
                layer.copy_to(cast(Layer, module))
        if self.head is not None:
            self.head.copy_to(cast(ConvNorm, plain.head))
        plain.classifier.load_state_dict(self.classifier.extract().state_dict())

    def sort_channels(self) -> None:
        """Sorts the expanded channels of all bottlenecks by importance, before widths begin to shrink.

        The largest network's function stays the same. Start a new optimiser.
        """
        for block in self.blocks:
            for layer in cast(nn.ModuleList, block):
                cast(ElasticLayer, layer).sort_channels()


def _initialise_smaller(module: nn.Module) -> None:
    """Kernels of their own as the stand-alone convolution of that size has them."""
    if isinstance(module, ElasticConv2d) and module.sharing == "own":
        for weight in module.smaller.values():
            nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
