"""HAT's SuperTransformer (2005.14187, Section 3.2): all networks of a space in one set of weights.

Every network is the front of the largest one: the first features of each width, the first layers of each
stack. Heads need no weights of their own, as they split what queries, keys and values have together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn

from ..elastic.linear import ElasticLayerNorm, ElasticLinear
from ..elastic.model import ElasticModel
from .layers import CrossAttention, DecoderLayer, EncoderLayer, FeedForward, Modules, SelfAttention, initialised
from .specs import DecoderLayerSpec, EncoderLayerSpec, TransformerSpec
from .transformer import Transformer


class ElasticModules(Modules):
    """Layers whose widths can change."""

    def linear(self, inputs: int, outputs: int) -> nn.Linear:
        """A linear layer that uses its first inputs and outputs."""
        return initialised(ElasticLinear(inputs, outputs))

    def norm(self, width: int) -> nn.LayerNorm:
        """A layer norm over the first features."""
        return ElasticLayerNorm(width)


class SuperTransformer(Transformer, ElasticModel):
    """All transformers of a space; the one that is selected also decodes token by token.

    Dropout shrinks with the width: a network of half the width drops half as often (HAT's rule).

    Args:
        largest: The largest network; it is selected first.
        widths: All widths of the space.
        spec_of: The network of a config; raises what is wrong with one that is none of the space.
    """

    def __init__(
        self,
        largest: TransformerSpec,
        widths: tuple[int, ...],
        spec_of: Callable[[Mapping[str, Any]], TransformerSpec],
    ) -> None:
        super().__init__(largest, ElasticModules(), widths)
        self._largest, self._spec_of = largest, spec_of

    def select(self, config: Mapping[str, Any]) -> None:
        """See :meth:`ElasticModel.select`."""
        spec = self._spec_of(config)
        self.encoder_width, self.decoder_width = spec.encoder_width, spec.decoder_width
        self.encoder_depth, self.decoder_depth = len(spec.encoder_layers), len(spec.decoder_layers)
        if self.encoder_norm is not None:
            cast(ElasticLayerNorm, self.encoder_norm).resize(spec.encoder_width)
        cast(ElasticLayerNorm, self.decoder_norm).resize(spec.decoder_width)
        for encoder_layer, encoder_spec in zip(self.encoder_layers, spec.encoder_layers, strict=False):
            self._resize_encoder(cast(EncoderLayer, encoder_layer), encoder_spec)
        for decoder_layer, decoder_spec in zip(self.decoder_layers, spec.decoder_layers, strict=False):
            self._resize_decoder(cast(DecoderLayer, decoder_layer), decoder_spec)
        self.dropout.p = self._dropout(spec.decoder_width)
        self.source_dropout.p = self._dropout(spec.encoder_width or spec.decoder_width)

    def extract(self, config: Mapping[str, Any]) -> Transformer:
        """See :meth:`ElasticModel.extract`."""
        mine = dict(self.named_parameters())
        weight = self.decoder_norm.weight
        with torch.random.fork_rng(devices=[]):
            plain = Transformer(self._spec_of(config)).to(weight.device, weight.dtype)
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                parameter.copy_(mine[name][tuple(slice(size) for size in parameter.shape)])
        return plain.train(self.training)

    def _dropout(self, width: int) -> float:
        return self._largest.dropout * width / max(self._largest.decoder_width, self._largest.encoder_width)

    def _resize_encoder(self, layer: EncoderLayer, spec: EncoderLayerSpec) -> None:
        width = self.encoder_width
        _resize_self(layer.self_norm, layer.self_attention, width, spec.heads)
        _resize_ffn(layer.ffn_norm, layer.ffn, width, spec.ffn)
        layer.dropout.p = self._dropout(width)

    def _resize_decoder(self, layer: DecoderLayer, spec: DecoderLayerSpec) -> None:
        width = self.decoder_width
        layer.attended = spec.attended
        _resize_self(layer.self_norm, layer.self_attention, width, spec.self_heads)
        if layer.cross_norm is not None and layer.cross_attention is not None:
            cast(ElasticLayerNorm, layer.cross_norm).resize(width)
            _resize_cross(layer.cross_attention, width, self.encoder_width, spec.cross_heads)
        _resize_ffn(layer.ffn_norm, layer.ffn, width, spec.ffn)
        layer.dropout.p = self._dropout(width)


def _linear(layer: nn.Linear) -> ElasticLinear:
    return cast(ElasticLinear, layer)


def _resize_self(norm: nn.LayerNorm, attention: SelfAttention, width: int, heads: int) -> None:
    cast(ElasticLayerNorm, norm).resize(width)
    _linear(attention.qkv).resize(in_features=width)
    _linear(attention.out).resize(out_features=width)
    attention.heads = heads


def _resize_cross(attention: CrossAttention, width: int, memory_width: int, heads: int) -> None:
    _linear(attention.q).resize(in_features=width)
    _linear(attention.kv).resize(in_features=memory_width)
    _linear(attention.out).resize(out_features=width)
    attention.heads = heads


def _resize_ffn(norm: nn.LayerNorm, ffn: FeedForward, width: int, inner: int) -> None:
    cast(ElasticLayerNorm, norm).resize(width)
    _linear(ffn.inner).resize(width, inner)
    _linear(ffn.outer).resize(inner, width)
