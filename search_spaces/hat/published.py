"""Transformers of these spaces in the ten features of HAT's latency tables (2005.14187).

Shapes: N architectures.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import SpaceError
from ..algebra import Genotypes
from ..hat_features import PUBLISHED
from .space import TransformerSpace

FloatArray = npt.NDArray[np.float64]


def published_features(space: TransformerSpace, genotypes: Genotypes) -> FloatArray:
    """Columns ``(N, 10)`` in the order of :data:`~gnomon.search_spaces.hat_features.PUBLISHED`: widths, numbers
    of layers, and means over the layers that a network has. What was learnt on HAT's tables reads them, and
    :func:`~gnomon.search_spaces.hat_features.physical_features` turns them into sums.

    Raises:
        SpaceError: If the space has no encoder.
    """
    if not space.sizes.encoder_layers:
        raise SpaceError("HAT's tables are of encoder-decoders", field="space", value=space.name, allowed="hat")
    values = {
        decision.name: np.array(decision.choices, dtype=np.float64)[genotypes[:, column]]
        for column, decision in enumerate(space.decisions)
    }

    def mean(side: str, gene: str) -> FloatArray:
        depth = values[f"{side}.layers"]
        deepest = max(getattr(space.sizes, f"{side}_layers"))
        layers = [values[f"{side}.layer{i}.{gene}"] * (depth >= i) for i in range(1, deepest + 1)]
        return np.asarray(np.sum(layers, axis=0) / depth)

    columns = {
        "encoder_embed_dim": values["encoder.width"],
        "encoder_layer_num": values["encoder.layers"],
        "encoder_ffn_embed_dim_avg": mean("encoder", "ffn"),
        "encoder_self_attention_heads_avg": mean("encoder", "heads"),
        "decoder_embed_dim": values["decoder.width"],
        "decoder_layer_num": values["decoder.layers"],
        "decoder_ffn_embed_dim_avg": mean("decoder", "ffn"),
        "decoder_self_attention_heads_avg": mean("decoder", "self_heads"),
        "decoder_ende_attention_heads_avg": mean("decoder", "cross_heads"),
        "decoder_arbitrary_ende_attn_avg": mean("decoder", "attended"),
    }
    return np.stack([columns[name] for name in PUBLISHED], axis=1)
