"""Decisions of a transformer space, and what a config says of each layer.

Names: ``encoder.width``, ``encoder.layers``, ``encoder.layer<i>.ffn`` and ``.heads``; ``decoder.width``,
``decoder.layers``, ``decoder.layer<i>.ffn``, ``.self_heads`` and, where there is an encoder, ``.cross_heads``
and ``.attended``. A layer's decisions matter only if there are as many layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..decision import Choice, Decision
from .sizes import Sizes
from .specs import DecoderLayerSpec, EncoderLayerSpec, TransformerSpec, Vocabulary


def decisions(sizes: Sizes) -> tuple[Decision, ...]:
    """All decisions, the encoder's first."""
    if not sizes.encoder_layers:
        return tuple(_stack("decoder", sizes, sizes.decoder_layers, {"self_heads": sizes.heads}))
    reading = {"self_heads": sizes.heads, "cross_heads": sizes.heads, "attended": sizes.attended}
    return (
        *_stack("encoder", sizes, sizes.encoder_layers, {"heads": sizes.heads}),
        *_stack("decoder", sizes, sizes.decoder_layers, reading),
    )


def _stack(side: str, sizes: Sizes, depths: tuple[int, ...], genes: Mapping[str, tuple[int, ...]]) -> list[Decision]:
    stack = [
        Decision(f"{side}.width", sizes.widths, ordered=True),
        Decision(f"{side}.layers", depths, ordered=True),
    ]
    for layer in range(1, depths[-1] + 1):
        condition = {f"{side}.layers": tuple(depth for depth in depths if depth >= layer)} if layer > depths[0] else {}
        for gene, choices in {"ffn": sizes.ffn_widths, **genes}.items():
            stack.append(Decision(f"{side}.layer{layer}.{gene}", choices, condition, ordered=True))
    return stack


def spec_of(config: Mapping[str, Any], vocabulary: Vocabulary, qkv_width: int, dropout: float) -> TransformerSpec:
    """The network of a config, which is one of the space."""
    encoder = tuple(
        EncoderLayerSpec(config[f"encoder.layer{i}.ffn"], config[f"encoder.layer{i}.heads"])
        for i in range(1, config.get("encoder.layers", 0) + 1)
    )
    decoder = tuple(
        DecoderLayerSpec(
            config[f"decoder.layer{i}.ffn"],
            config[f"decoder.layer{i}.self_heads"],
            config.get(f"decoder.layer{i}.cross_heads", 0),
            config.get(f"decoder.layer{i}.attended", 0),
        )
        for i in range(1, config["decoder.layers"] + 1)
    )
    return TransformerSpec(
        vocabulary,
        qkv_width,
        config.get("encoder.width", 0),
        config["decoder.width"],
        encoder,
        decoder,
        dropout,
    )


def uniform(
    sizes: Sizes, encoder_layers: int, decoder_layers: int, width: int, ffn: int, heads: int, attended: int
) -> dict[str, Choice]:
    """The config of a network whose layers are all alike."""
    config: dict[str, Choice] = {}
    if sizes.encoder_layers:
        config |= {"encoder.width": width, "encoder.layers": encoder_layers}
        for i in range(1, encoder_layers + 1):
            config |= {f"encoder.layer{i}.ffn": ffn, f"encoder.layer{i}.heads": heads}
    config |= {"decoder.width": width, "decoder.layers": decoder_layers}
    for i in range(1, decoder_layers + 1):
        config |= {f"decoder.layer{i}.ffn": ffn, f"decoder.layer{i}.self_heads": heads}
        if sizes.encoder_layers:
            config |= {f"decoder.layer{i}.cross_heads": heads, f"decoder.layer{i}.attended": attended}
    return config


def plain(sizes: Sizes, encoder_layers: int, decoder_layers: int, width: int) -> dict[str, Choice]:
    """A Transformer as people build it: all layers alike, a feed-forward nearest to four times the width, the
    most heads, attention to the last encoder layer (or the fewest that the space offers)."""
    ffn = nearest(sizes.ffn_widths, 4 * width)
    attended = sizes.attended[0] if sizes.attended else 0
    return uniform(sizes, encoder_layers, decoder_layers, width, ffn, sizes.heads[-1], attended)


def nearest(choices: Sequence[int], wanted: int) -> int:
    """The choice nearest to ``wanted``, the smaller one of two as near."""
    return min(choices, key=lambda choice: (abs(choice - wanted), choice))


def plain_networks(sizes: Sizes) -> dict[str, dict[str, Choice]]:
    """``plain_6x1``: six encoder layers and one decoder layer, at the largest width; ``plain_6x1_w48`` at
    another. First the deepest at the largest width, which is what HAT compares with. Without encoder ``plain_6``.
    """
    depths = [(e, d) for e in sizes.encoder_layers[::-1] or (0,) for d in sizes.decoder_layers[::-1]]
    return {
        "plain_"
        + (f"{encoder}x{decoder}" if encoder else f"{decoder}")
        + (f"_w{width}" if width != sizes.widths[-1] else ""): plain(sizes, encoder, decoder, width)
        for width in sizes.widths[::-1]
        for encoder, decoder in depths
    }


def log10_size(sizes: Sizes) -> float:
    """log10 of the number of architectures, exactly: layers apart, what is attended to no more than there is."""
    ffn, heads, widths = len(sizes.ffn_widths), len(sizes.heads), len(sizes.widths)
    if not sizes.encoder_layers:
        return math.log10(widths * sum((ffn * heads) ** depth for depth in sizes.decoder_layers))
    total = 0
    for encoder in sizes.encoder_layers:
        reachable = sum(attended <= encoder for attended in sizes.attended)
        decoders = sum((ffn * heads * heads * reachable) ** depth for depth in sizes.decoder_layers)
        total += (ffn * heads) ** encoder * decoders
    return math.log10(widths**2 * total)
