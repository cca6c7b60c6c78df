"""What HAT's transformers do, from the ten averages that its tables list (2005.14187).

Latency is a sum over layers, and a layer's is close to linear in its widths; averages are not. Their
products with the number of layers are.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

PUBLISHED = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
"""HAT's ten features, under upstream's names: widths, numbers of layers, averages over layers."""

PHYSICAL = (
    "encoder_layers",
    "encoder_ffn_weights",
    "encoder_projection_weights",
    "decoder_layers",
    "decoder_projection_weights",
    "decoder_ffn_weights",
    "decoder_self_heads",
    "decoder_cross_heads",
    "decoder_attended_layers",
    "decoder_key_weights",
)
"""Columns of :func:`physical_features`; weights aside from constant factors."""


def physical_features(published: FloatArray) -> FloatArray:
    """Sums over layers ``(N, 10)``, see ``PHYSICAL``, from averages ``(N, 10)``, see ``PUBLISHED``.

    ``decoder_key_weights``: keys and values of the encoder layers that the decoder attends to, which
    each decoder layer projects anew.
    """
    e_width, e_layers, e_ffn, _, d_width, d_layers, d_ffn, self_heads, cross_heads, attended = published.T
    columns = (
        e_layers,
        e_layers * e_width * e_ffn,
        e_layers * e_width,
        d_layers,
        d_layers * d_width,
        d_layers * d_width * d_ffn,
        d_layers * self_heads,
        d_layers * cross_heads,
        d_layers * attended,
        d_layers * attended * e_width,
    )
    return np.stack(columns, axis=1)
