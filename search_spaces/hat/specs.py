"""What a transformer of these spaces is made of, as plain specifications. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sharing = Literal["none", "target", "all"]
SHARING: tuple[Sharing, ...] = ("none", "target", "all")


@dataclass(frozen=True)
class Vocabulary:
    """Tables of tokens and positions, which all networks of a space have in common.

    Args:
        source, target: Number of tokens.
        sharing: ``none``: source, target and output layer each have a table. ``target``: target and output
            layer share one. ``all``: all three do; a narrower side uses the first columns.
        max_length: Positions that a sentence may have.
    """

    source: int
    target: int
    sharing: Sharing = "target"
    max_length: int = 256


@dataclass(frozen=True)
class EncoderLayerSpec:
    """An encoder layer: width between its two linear layers, heads of its attention."""

    ffn: int
    heads: int


@dataclass(frozen=True)
class DecoderLayerSpec:
    """A decoder layer.

    Args:
        ffn: Width between its two linear layers.
        self_heads: Heads of the attention to what was generated so far.
        cross_heads: Heads of the attention to the source; 0 for none.
        attended: How many of the last encoder layers that attention reads, side by side (HAT's
            arbitrary encoder-decoder attention); 0 for none.
    """

    ffn: int
    self_heads: int
    cross_heads: int = 0
    attended: int = 0


@dataclass(frozen=True)
class TransformerSpec:
    """One network.

    Args:
        vocabulary: Its tokens.
        qkv_width: Features of all heads of an attention together; heads split them.
        encoder_width, decoder_width: Features of a token.
        encoder_layers: From first to last; empty for a decoder-only network.
        decoder_layers: From first to last.
        dropout: Probability in training.
    """

    vocabulary: Vocabulary
    qkv_width: int
    encoder_width: int
    decoder_width: int
    encoder_layers: tuple[EncoderLayerSpec, ...]
    decoder_layers: tuple[DecoderLayerSpec, ...]
    dropout: float = 0.0
