"""Transformers without an encoder: one causal stack reads the source as a prompt and goes on writing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .sizes import Sizes, checked_choices, checked_count
from .space import TransformerSpace
from .specs import Sharing


class HATDecoderSpace(TransformerSpace):
    """HAT's decoder without attention to an encoder: a causal language model that continues a prompt.

    Decisions: ``decoder.width``, ``decoder.layers``, and for each layer ``ffn`` and ``self_heads``. What a
    device runs is ``prefill`` (the prompt, once) and ``step``.

    Source and target tokens have tables of their own, unless ``shared_embeddings`` is ``all``.

    Args:
        source_vocabulary, target_vocabulary, widths, ffn_widths, heads, decoder_layers, qkv_width,
        source_length, generated_length, beam, shared_embeddings, dropout: As of
            :class:`~gnomon.search_spaces.hat.space.HATSpace`.
        max_length: Longest prompt and continuation together.
    """

    name: ClassVar[str] = "hat_decoder"

    def __init__(
        self,
        source_vocabulary: int | None = None,
        target_vocabulary: int | None = None,
        widths: Sequence[int] = (48, 64),
        ffn_widths: Sequence[int] = (64, 128, 192),
        heads: Sequence[int] = (2, 4),
        decoder_layers: Sequence[int] = (1, 2, 3, 4, 5, 6),
        qkv_width: int = 64,
        source_length: int | None = None,
        generated_length: int | None = None,
        beam: int | None = None,
        shared_embeddings: Sharing = "target",
        max_length: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        sizes = Sizes(
            checked_choices("widths", widths),
            checked_choices("ffn_widths", ffn_widths),
            checked_choices("heads", heads),
            (),
            checked_choices("decoder_layers", decoder_layers),
            (),
            checked_count("qkv_width", qkv_width),
        )
        super().__init__(
            sizes,
            {
                "source_vocabulary": source_vocabulary,
                "target_vocabulary": target_vocabulary,
                "widths": widths,
                "ffn_widths": ffn_widths,
                "heads": heads,
                "decoder_layers": decoder_layers,
                "qkv_width": qkv_width,
                "source_length": source_length,
                "generated_length": generated_length,
                "beam": beam,
                "shared_embeddings": shared_embeddings,
                "max_length": max_length,
                "dropout": dropout,
            },
        )
